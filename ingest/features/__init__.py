"""Vectors that others computed, in: files of CLAM, TRIDENT, slide2vec, and safetensors."""
