"""The encoder that ships: data, recipes, run, report."""
