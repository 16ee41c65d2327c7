"""Cases: which are similar, and their cell counts."""
