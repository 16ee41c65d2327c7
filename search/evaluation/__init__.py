"""Scores of a collection or an uploaded set: splits, metrics, comparison."""
