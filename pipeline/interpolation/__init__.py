"""Networks between two checkpoints, and how noise and error change on the way."""
