"""Files in, points out."""

import encoder  # noqa: F401 - before NumPy
