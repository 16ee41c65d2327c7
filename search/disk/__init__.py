"""Durable writes, locks and free space."""
