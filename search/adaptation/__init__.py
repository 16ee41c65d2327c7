"""A collection adapted to itself: the transform fitted, held to what was held out, and served."""
