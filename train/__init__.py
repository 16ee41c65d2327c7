"""Training encoders, and the evaluation that proves them."""
