"""Running a training, from its start to its report."""
