"""What every part needs and none owns: archives read within bounds, locks."""
