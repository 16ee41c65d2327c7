"""Case models: one label of a case from all of its cells, applied without torch."""
