"""Items with their vectors as files that other programs read."""
