# `make` lists what there is. Everything is installed into .venv, in this folder; nothing else is touched.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
NPM := tests/npm/node_modules/.package-lock.json

.PHONY: help demo test test-long check format bench clean

help:  ## this list
	@echo "make demo        a short conversation with the bundled model, through both APIs"
	@echo "make test        the whole test suite"
	@echo "make check       formatting, lint and types"
	@echo "make format      mends what make check says about formatting and imports"
	@echo "make bench       the benchmarks (a C compiler and nginx are needed)"
	@echo "make test-long   the tests that are too slow for CI"
	@echo "make clean       removes .venv and everything built"

demo: $(VENV)/installed
	@$(BIN)/portico demo

test: $(VENV)/installed-dev $(NPM)
	@$(PYTEST) -m "not long" $(ARGS)

test-long: $(VENV)/installed-dev $(NPM)
	@$(PYTEST) -m long --timeout 1800 $(ARGS)

check: $(VENV)/installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/installed-dev
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: $(VENV)/installed
	@$(MAKE) --no-print-directory -C benchmarks PYTHON="$(CURDIR)/$(BIN)/python" bench

clean:
	rm -rf $(VENV) build dist demo-out tests/npm/node_modules .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@[ ! -f benchmarks/Makefile ] || $(MAKE) --no-print-directory -C benchmarks clean
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- what the targets above stand on

$(VENV)/made:
	@sh scripts/make-venv $(VENV)
	@touch $@

$(VENV)/installed: pyproject.toml $(VENV)/made
	@echo "Installing Portico into $(VENV) (once)"
	@sh scripts/retry 3 $(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/made
	@echo "Installing Portico and its development tools into $(VENV) (once)"
	@sh scripts/retry 3 $(PIP) install --editable ".[dev]"
	@touch $(VENV)/installed $@

# Two of the clients that the tests use come from npm. Without npm those tests are skipped, and say so.
$(NPM): tests/npm/package.json tests/npm/package-lock.json
	@if command -v npm >/dev/null 2>&1; then \
		sh scripts/retry 3 npm ci --prefix tests/npm --no-audit --no-fund --ignore-scripts --loglevel=error && touch $@ || \
		echo "npm could not install the clients; their tests will be skipped"; \
	else echo "npm is not installed; the tests of the npm clients will be skipped"; fi
