"""Runs in: the process that asks. What may a program do, what may that process do, what can this host do."""
