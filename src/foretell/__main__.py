"""`python -m foretell`, the form that torchrun starts."""

from foretell.cli import main

main()
