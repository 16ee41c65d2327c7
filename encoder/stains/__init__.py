"""Stain normalisation, and encoders that normalise before they embed."""
