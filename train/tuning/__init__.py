"""An encoder trained further: by labels, or by a larger encoder."""
