"""Exact nearest neighbours, duplicates, groups and site bias."""
