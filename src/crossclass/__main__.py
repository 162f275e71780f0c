"""`python -m crossclass` is the command line."""

from crossclass.cli import main

main()
