"""The search service: stores of vectors, queries, votes, evaluation and maintenance."""

import encoder  # noqa: F401 - before NumPy
