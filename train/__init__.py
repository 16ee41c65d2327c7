"""Training encoders, and the evaluation that proves them."""

import encoder  # noqa: F401 - before NumPy
