"""Encoders that measure colours, shape and texture, and those joined with a network."""
