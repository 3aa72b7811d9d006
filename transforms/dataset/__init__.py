"""Creates, writes and reads prepared data sets."""
