"""Whole-slide images: reading, tissue, tiles, quality, deep zoom."""
