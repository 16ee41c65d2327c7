"""Views of an image: colour, geometry, masking, pixels."""
