"""Files in, points out."""
