"""Runs in: the monitor, the zygotes and the workers of `bunri demo`: pictures decoded where they do no harm.

monitor.py    the user's process: opens files, hands descriptors out, writes what comes back; has no Pillow
decoder.py    a confined worker for each file: Pillow parses the stranger's bytes, plain pixels go home
composer.py   a confined worker that turns pixels and captions into PNG files
attacker.py   a confined worker, under the decoder's policy, that tries what an attacker would try (attacks.py)
samples.py    the files of the demonstration, hostile ones among them
processes.py  what /proc says of every process
report.py     what is shown
"""
