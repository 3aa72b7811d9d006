"""What a training step gets: patches and the transforms that prepare them."""
