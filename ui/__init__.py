"""Everything a person touches: the terminal and the page."""
