"""Blood-smear fields: finding cells, scale, cutting crops."""
