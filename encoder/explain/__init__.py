"""Which parts of two images make their vectors alike."""
