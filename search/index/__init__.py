"""The store contract, the embedded engine and the Qdrant server."""
