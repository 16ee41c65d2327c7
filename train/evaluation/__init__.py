"""The papers' evaluation: vectors, kNN, linear probe, ABMIL, tables."""
