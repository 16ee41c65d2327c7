"""Training of case models."""
