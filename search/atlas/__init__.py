"""Maps of a collection in two dimensions, and batch effects."""
