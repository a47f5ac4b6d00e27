"""`python -m tidemill`: the command, where its script is not on the path."""

from tidemill.cli import main

main()
