"""Sample sets: openly licensed ones to download, and drawn ones."""
