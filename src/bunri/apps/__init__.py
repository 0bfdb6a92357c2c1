"""Runs in: the programs' own processes. Programs on bunri that import its public names only."""
