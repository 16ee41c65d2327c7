"""The HTTP routes of slides, the cell finder and the ledger."""
