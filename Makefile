# `make help` lists the targets. Everything is installed into .venv; the user's own Python stays as it is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup test lint format bench bench-peers clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with the package and its development tools

$(STAMP): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || \
	  { echo "Python 3.10 to 3.12 is needed; set it with: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e '.[dev]'
	@touch $@

test: lint ## check the style, then run all tests
	$(BIN)/python -m pytest

lint: setup ## ruff (lint and format) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# MODEL and DATASET say what to measure with; without them it is what the tests on the real model use.
BENCH_INPUTS := $(if $(MODEL),--model $(MODEL)) $(if $(DATASET),--dataset $(DATASET))

bench: setup ## measure speed, accuracy and search; MODEL=pb DATASET=dir to choose what with
	$(BIN)/python benchmarks/default_run.py $(BENCH_INPUTS)
	$(BIN)/python benchmarks/search.py $(BENCH_INPUTS)
	$(BIN)/python benchmarks/ranking.py $(BENCH_INPUTS)
	$(BIN)/python benchmarks/simulation.py $(BENCH_INPUTS)
	$(BIN)/python benchmarks/pipeline.py $(BENCH_INPUTS)

bench-peers: setup ## compare with other tools, which get an environment of their own
	$(BIN)/python benchmarks/peers.py $(BENCH_INPUTS)

clean: ## remove .venv and caches; models, data and results stay
	rm -rf $(VENV) benchmarks/.peers .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
