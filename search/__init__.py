"""The words the product speaks, the stores that hold vectors, and the service that answers."""

import encoder  # noqa: F401 - before NumPy
