# Everything runs in .venv beside this file, whatever environment is active. PYTHON chooses what makes it:
#     make test PYTHON=python3.12

SHELL := /bin/bash
PYTHON ?= python3
PIP := .venv/bin/python -m pip --disable-pip-version-check
# Packages of more than a megabyte are named as they arrive; errors and warnings show as always.
DOWNLOADS := sed -un 's/^ *Downloading \([^ ]*\) (\([0-9.]* [MG]B\)).*/  \1 (\2)/p'

unexport PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test check lint format npu reference docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1@\2/p' Makefile | column -t -s @ 2>/dev/null \
	  || sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1: \2/p' Makefile

quickstart: .venv/.installed-quickstart  ## install, train on the built-in data, evaluate, predict, export (about 10 minutes)
	@.venv/bin/fsaf quickstart

test: lint  ## install what tests need, check format and types, run every test
	.venv/bin/pytest -n auto --maxprocesses 8 --dist worksteal

check: lint  ## format, style, types, and the tests not marked slow (three minutes on two cores)
	.venv/bin/pytest -n auto --maxprocesses 8 --dist worksteal -m "not slow"

lint: .venv/.installed-dev  ## check format, style and types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

format: .venv/.installed-dev  ## format the code and mend what can be mended
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

npu: .venv-npu/.installed  ## install the real torch_npu on an emulated CANN, for tests/npu (about a minute)

.venv-npu/.installed: tests/npu/emulator/setup.sh pyproject.toml
	tests/npu/emulator/setup.sh .venv-npu "$(PYTHON)"
	@touch "$@"

reference: .venv/.installed-dev  ## write the reference pages of docs/ anew, from the code
	.venv/bin/python tools/reference.py

docs: .venv/.installed-docs  ## build the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

clean:  ## remove .venv and caches; runs and data stay
	rm -rf .venv .venv-npu .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of extras: the second `make` installs nothing unless pyproject.toml has changed.
.venv/.installed-%: pyproject.toml | .venv/bin/pip
	@echo "Installing fsaf[$*] and what it needs into .venv (a few minutes at most) ..."
	@set -o pipefail; $(PIP) install --progress-bar off -e ".[$*]" | $(DOWNLOADS)
	@touch "$@"

.venv/bin/pip:
	@command -v "$(PYTHON)" >/dev/null || { echo "No '$(PYTHON)' here; give another with make PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "fsaf needs Python 3.10 or newer; '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1). Give another with make PYTHON=..." >&2; exit 1; }
	@echo "Making .venv with $$("$(PYTHON)" -V) ..."
	@"$(PYTHON)" -m venv .venv || { rm -rf .venv; \
	  echo "'$(PYTHON) -m venv' does not work here (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
