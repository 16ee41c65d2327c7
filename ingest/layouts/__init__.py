"""How images and their labels lie on disk, and how a folder is recognised."""
