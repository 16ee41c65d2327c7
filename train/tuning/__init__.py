"""An encoder taught further: by labels, or by a larger encoder."""
