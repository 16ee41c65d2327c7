"""Child processes that open files, so that a damaged file cannot end a run."""
