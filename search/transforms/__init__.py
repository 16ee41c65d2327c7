"""Transforms that a library fits on its own vectors: sites aligned, labels used."""
