# Each target does all its own set-up: an interpreter, .venv, the packages. See tools/setup.sh.
#   make demo     the main job: hostile images, decoded by confined workers      FOLDER=... for your own
#   make test     everything: linters, types, walls, all tests as root and as an ordinary user
#   PYTHON=...    another interpreter (3.11 or newer);   APT=no   never install Debian packages

SHELL := /bin/bash
PYTHON ?=
APT ?=
FOLDER ?=
ARGS ?=
export PYTHON APT

VENV := .venv/bin/python
RUN := bash tools/setup.sh run
DEV := bash tools/setup.sh dev

.PHONY: help demo test test-vm containers soak check lint format types docs bench growth fuzz fuzz-packets threats clean
.NOTPARALLEL:

help:
	@sed -n '2,4s/^# *//p' Makefile
	@echo "others:  make check (fast) test-vm (other kernels, emulated) containers soak lint format types docs bench growth fuzz fuzz-packets threats clean"

demo:
	@$(RUN)
	@$(VENV) -P -m bunri demo $(FOLDER)

test:
	@$(DEV)
	@$(VENV) tools/suite.py test $(ARGS)

test-vm:
	@$(DEV)
	@PACKAGES=tools/vm/debian-packages.txt $(DEV)
	@PYTHONPATH=tools $(VENV) -m vm $(ARGS)

soak:
	@$(DEV)
	@BUNRI_SOAK=1 $(VENV) -m pytest tests/chaos -q -s --timeout=3600 $(ARGS)

containers:
	@$(DEV)
	@$(VENV) tools/containers.py $(ARGS)

check:
	@$(DEV)
	@$(VENV) tools/suite.py check $(ARGS)

lint:
	@$(DEV)
	@$(VENV) tools/suite.py lint

types:
	@$(DEV)
	@$(VENV) tools/suite.py types

format:
	@$(DEV)
	@$(VENV) -m ruff check --fix-only --quiet . && $(VENV) -m ruff format .

docs:
	@$(DEV)
	@$(VENV) tools/suite.py docs && echo "open site/index.html"

bench:
	@$(DEV)
	@$(VENV) -m pip install -qq --disable-pip-version-check -e '.[bench]' && $(VENV) -m benchmarks $(ARGS)

# How starts and memory grow, as the picture in the docs.
growth:
	@$(DEV)
	@$(VENV) -m pip install -qq --disable-pip-version-check -e '.[bench]' && $(VENV) -m benchmarks.growth docs/growth.svg

# Generated frames by number, or --seconds N by coverage, to both ends of a conversation. Not part of test: minutes to hours.
fuzz:
	@$(DEV)
	@$(VENV) -m pip install -qq --disable-pip-version-check -e '.[fuzz]' && $(VENV) tests/evil/fuzz.py $(ARGS)

# Packets grown by coverage, to every printer of bunri dump.
fuzz-packets:
	@$(DEV)
	@$(VENV) -m pip install -qq --disable-pip-version-check -e '.[fuzz]' && $(VENV) tests/dump/fuzz.py $(ARGS)

threats:
	@$(DEV)
	@$(VENV) tools/threats.py $(ARGS)

clean:
	rm -rf .venv .venv-3.* site build dist demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests tools benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
