"""`python -m ui` is `hemaseek`."""

from ui.cli.main import main

main()
