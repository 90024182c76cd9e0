# `make` lists what there is. Everything is installed into .venv, in this folder; nothing else is touched.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
MODEL := models/portico-tiny
MODEL_VENV := .venv-model
MODEL_PYTHON := cd $(MODEL) && $(CURDIR)/$(MODEL_VENV)/bin/python -m
# What the trainings leave, one after the other: each goes on from the weights of the one before, with a learning rate that
# rises and falls again, up to so many steps in all. Started again after an interruption, each goes on where it was. Other
# steps: make model STEPS="60 120".
TRAINED := $(CURDIR)/build/portico-tiny
STEPS := 6000 12000 14500
TRAIN := recipe.train --seed 1 --tokenizer $(TRAINED)/tokenizer.json --resume
NPM := tests/npm/node_modules/.package-lock.json

.PHONY: help demo test test-long check format bench model model-eval model-compare clean

help:  ## this list
	@echo "make demo        a short conversation with the bundled model, through both APIs"
	@echo "make test        the whole test suite"
	@echo "make check       formatting, lint and types"
	@echo "make format      mends what make check says about formatting and imports"
	@echo "make bench       the benchmarks (a C compiler and nginx are needed)"
	@echo "make test-long   the tests that are too slow for CI"
	@echo "make model       trains the bundled model again, from nothing (hours; PyTorch is installed into .venv-model)"
	@echo "make model-eval  measures the bundled model as it is shipped, into its model card"
	@echo "make model-compare VLLM_PYTHON=...  asks three engines the same, into the card (a Python that has vLLM is needed)"
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

model: $(MODEL_VENV)/installed
	@$(MODEL_PYTHON) recipe.evaluate --check README.md
	@$(MODEL_PYTHON) pytest -q -c /dev/null --rootdir . recipe
	@mkdir -p $(TRAINED)
	@$(MODEL_PYTHON) recipe.tokenizer $(TRAINED)/tokenizer.json
	@first=0 before=; for steps in $(STEPS); do \
		mkdir -p $(TRAINED)/$$steps && cp $(MODEL)/chat_template.jinja $(TRAINED)/tokenizer.json $(TRAINED)/$$steps/ && \
		( $(MODEL_PYTHON) $(TRAIN) --out $(TRAINED)/$$steps --steps $$steps --first $$first \
			$${before:+--init $$before/model.safetensors} ) || exit 1; \
		first=$$steps before=$(TRAINED)/$$steps; done
	@$(MODEL_PYTHON) recipe.export $(TRAINED)/$(lastword $(STEPS)) . \
		$(addprefix --earlier $(TRAINED)/,$(filter-out $(lastword $(STEPS)),$(STEPS)))
	@$(MODEL_PYTHON) recipe.golden
	@$(MODEL_PYTHON) recipe.evaluate --update README.md $(ARGS)

model-eval: $(VENV)/installed
	@cd $(MODEL) && $(CURDIR)/$(BIN)/python -m recipe.evaluate --update README.md $(ARGS)

# VLLM_PYTHON is the path of a Python with vLLM: it needs other versions of nearly everything.
model-compare: $(MODEL_VENV)/installed
	@test -x "$(VLLM_PYTHON)" || { echo "make model-compare VLLM_PYTHON=/path/to/python, one that vLLM is installed for" >&2; exit 2; }
	@$(MODEL_PYTHON) recipe.compare run --engine llamacpp
	@$(MODEL_PYTHON) recipe.compare run --engine transformers
	@$(MODEL_PYTHON) recipe.compare run --engine vllm --python $(abspath $(VLLM_PYTHON))
	@$(MODEL_PYTHON) recipe.compare report --update README.md

clean:
	rm -rf $(VENV) $(MODEL_VENV) build dist demo-out tests/npm/node_modules .pytest_cache .ruff_cache .mypy_cache .hypothesis
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

# PyTorch for CPUs alone, where pip's own sources have it; else from where PyTorch publishes it.
$(MODEL_VENV)/installed: $(MODEL)/requirements.txt pyproject.toml
	@sh scripts/make-venv $(MODEL_VENV)
	@echo "Installing PyTorch and Portico into $(MODEL_VENV) (once)"
	@$(MODEL_VENV)/bin/python -m pip --disable-pip-version-check --quiet install -r $(MODEL)/requirements.txt --editable . || \
		$(MODEL_VENV)/bin/python -m pip --disable-pip-version-check --quiet install \
			--extra-index-url https://download.pytorch.org/whl/cpu -r $(MODEL)/requirements.txt --editable .
	@touch $@

# Two of the clients that the tests use come from npm. Without npm those tests are skipped, and say so.
$(NPM): tests/npm/package.json tests/npm/package-lock.json
	@if command -v npm >/dev/null 2>&1; then \
		sh scripts/retry 3 npm ci --prefix tests/npm --no-audit --no-fund --ignore-scripts --loglevel=error && touch $@ || \
		echo "npm could not install the clients; their tests will be skipped"; \
	else echo "npm is not installed; the tests of the npm clients will be skipped"; fi
