"""Images in, unit vectors out."""

import os

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")
"""Read when NumPy loads: its threads else wait by spinning, a core lost for 30 ms and more after
every product of matrices, to readers and to whatever else runs. Every package loads this one."""
