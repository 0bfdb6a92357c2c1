"""Runs in: the user's shell. `python -m bunri` is the command `bunri`."""

from bunri.cli import main

if __name__ == "__main__":
    main()
