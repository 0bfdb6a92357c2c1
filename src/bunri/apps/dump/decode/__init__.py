"""Runs in: the decoder, confined; pure. Packets as text, one module for each protocol; table.py says who calls whom."""
