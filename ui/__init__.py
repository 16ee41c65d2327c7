"""Everything a person touches: the terminal and the page."""

import encoder  # noqa: F401 - before NumPy
