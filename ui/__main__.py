"""`python -m ui` is `hemaseek`."""

from ui.cli import main

main()
