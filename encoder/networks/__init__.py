"""Networks that encode: architectures, checkpoints, published weights, engines, export."""
