"""Runs in: the monitor, the zygotes and the workers. Zygotes, workers, supervision, pools."""
