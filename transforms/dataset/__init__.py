"""Makes, writes and reads prepared data sets."""
