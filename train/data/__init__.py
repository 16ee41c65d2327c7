"""Images to train on and labelled sets to evaluate on."""
