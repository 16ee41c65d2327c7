"""The run of an ingest: read, embed, store, keep account."""
