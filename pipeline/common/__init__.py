"""What every room needs and none owns: errors, optional packages, checkpoint files, processes."""
