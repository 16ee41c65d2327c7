"""A collection adapted to itself: a transform fitted, scored on held-out groups, and served."""
