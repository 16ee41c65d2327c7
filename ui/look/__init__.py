"""Theme, palette, cards, tables and galleries."""
