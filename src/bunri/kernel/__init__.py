"""Runs in: every process. The ground floor: one thin, typed module per kernel interface; decides nothing.

Each function is one system call (or one file of /proc). A failure is an OSError with the errno and the call's name.
"""
