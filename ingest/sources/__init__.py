"""What a run takes in: sources, marked cells, and the report of what came of them."""
