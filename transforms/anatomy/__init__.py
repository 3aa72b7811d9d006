"""Find regions of a CT slice: body, padding, uniform soft tissue."""
