"""Pieces of fields and slides that `train` takes by entry points."""
