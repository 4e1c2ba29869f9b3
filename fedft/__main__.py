"""``python -m fedft``: the command line."""

from fedft.cli import main

main()
