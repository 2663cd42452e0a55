# `make help` lists the targets. Everything is installed into .venv; the user's own Python stays as it is.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first Python on the path that the project supports and that can make environments; PYTHON=... chooses another.
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))
PYTHON ?= $(firstword $(foreach python,python3 python3.12 python3.11 python3.10,\
  $(shell $(python) -c '$(SUPPORTED)' 2>/dev/null && echo $(python))))
# Settings of the user's that would send packages elsewhere than into .venv, or find others than those in it.
unexport PIP_USER PIP_TARGET PIP_PREFIX PYTHONPATH PYTHONHOME

SAMPLE := src/mobilenet_v2_accuracy_based_auto_calibration.py
BUNDLED := --dataset data/fashion_mnist --model model/mobilenet_v2_0.35_48_fashion_mnist.pb
FETCHED := model/mobilenet_v2_1.0_224_frozen.pb

.DEFAULT_GOAL := help
.PHONY: help setup demo model test test-all lint format docs dist fuzz fuzz-models kill mutants browser bench bench-accuracy bench-dense bench-models bench-real bench-diagnosis bench-exports bench-peers lock audit map clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## create .venv with the package and its development tools

$(STAMP): pyproject.toml requirements.txt
	@$(or $(PYTHON),false) -c '$(SUPPORTED)' 2>/dev/null || \
	  { echo "Python 3.10 to 3.12 with venv is needed; say which: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@echo "Installing TensorFlow and the tools into $(VENV); this takes one to three minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e '.[dev]'
	@touch $@

demo: setup ## quantize the bundled model, so coarsely that a layer has to stay in float
	$(BIN)/python $(SAMPLE) $(BUNDLED) --config_defination model/symmetric_per_tensor.cfg --expected_acc_loss 0.2

model: $(FETCHED) ## fetch MobileNet V2 for ImageNet into model/; ARCHIVE=file takes it from a file

$(FETCHED): | setup
	$(BIN)/python model/fetch_mobilenet_v2.py $(if $(ARCHIVE),--archive '$(ARCHIVE)')

# Two processes share the tests; in the end the one that is done takes over what the other has left.
TEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: lint ## check the style, then run the tests that take five minutes in all
	$(TEST) -m "not campaign"

test-all: setup ## run the tests that take longer: campaigns, whole grids, real models
	$(TEST) -m campaign
	FUZZ_CASES=1000 $(TEST) tests/test_fuzz.py

lint: setup ## ruff (lint and format) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

DOCS_STAMP := $(VENV)/.docs-installed
SITE := site

docs: $(DOCS_STAMP) ## build the pages and the API of the docstrings as a site, to be browsed offline
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . $(SITE)
	@echo "Open $(SITE)/docs/index.html in a browser."

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

dist: setup ## build the wheel and the source distribution into dist/
	$(BIN)/python -m build --no-isolation

fuzz: setup ## feed every parser 20,000 damaged files; CASES=n says how many
	FUZZ_CASES=$(or $(CASES),20000) $(BIN)/python -m pytest tests/test_fuzz.py

fuzz-models: setup ## carry 1,000 random models through every stage; CASES=n says how many, FIRST=seed from which on
	cd tests && ../$(BIN)/python -m random_models --cases $(or $(CASES),1000) --first $(or $(FIRST),0)

kill: setup ## kill the bundled run at 200 moments, and check what is left; MOMENTS=n says how many
	$(BIN)/python tests/killing.py --moments $(or $(MOMENTS),200)

mutants: setup ## change the engine in 30 places, one at a time, and say which of these faults the tests notice
	$(BIN)/python tests/mutants.py

browser: ## install Chromium for the tests of the report, where apt and the permission are at hand
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }

# MODEL and DATASET say what to measure with; without them it is what the tests on the real model use.
BENCH_INPUTS := $(if $(MODEL),--model $(MODEL)) $(if $(DATASET),--dataset $(DATASET))

bench: setup ## measure speed, accuracy and search; MODEL=pb DATASET=dir to choose what with
	$(BIN)/python benchmarks/default_run.py
	$(BIN)/python benchmarks/search.py $(BENCH_INPUTS)
	$(BIN)/python benchmarks/ranking.py $(BENCH_INPUTS)
	$(BIN)/python benchmarks/simulation.py $(BENCH_INPUTS)
	$(BIN)/python benchmarks/execution.py
	$(BIN)/python benchmarks/pipeline.py $(BENCH_INPUTS)
	$(BIN)/python benchmarks/endurance.py
	$(BIN)/python benchmarks/scaling.py $(BENCH_INPUTS)
	$(BIN)/python benchmarks/depth.py
	$(BIN)/python benchmarks/calibration.py

bench-accuracy: setup ## measure what each step of quantization gains, and write the tables in docs/algorithms.md
	$(BIN)/python benchmarks/accuracy.py

bench-dense: setup ## measure what each step gains on dense layers of transformers, and write the tables in docs/algorithms.md
	$(BIN)/python benchmarks/dense.py

bench-models: setup ## quantize networks of many kinds, and write the table in docs/models.md
	$(BIN)/python benchmarks/models.py

bench-real: setup ## fetch real networks of every kind from their registries, quantize them, and judge them as their users would
	$(BIN)/python benchmarks/real_networks.py

bench-diagnosis: setup ## do what is advised for two real networks, and write the tables in docs/diagnosis.md
	$(BIN)/python benchmarks/diagnosis.py

bench-exports: setup ## measure exported files against their runtimes' own quantizers, and write the table in benchmarks/README.md
	$(BIN)/python benchmarks/exports.py

bench-peers: setup ## compare with other tools, which get an environment of their own
	$(BIN)/python benchmarks/peers.py $(BENCH_INPUTS)

LOCK := requirements-dev.lock

lock: setup ## write requirements-dev.lock anew, with the versions and hashes of everything in .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-tools
	$(BIN)/pip-compile --quiet --allow-unsafe --extra=dev --strip-extras --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file=$(LOCK) pyproject.toml

audit: setup ## look up known vulnerabilities of the locked packages; this needs internet
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement $(LOCK) --disable-pip

map: ## print every file of the package with its first line
	@find amct_tensorflow -name '*.py' | sort | xargs awk 'FNR == 1 { gsub(/"""/, ""); printf "%-64s %s\n", FILENAME, $$0 }'

clean: ## remove .venv and caches; models, data and results stay
	rm -rf $(VENV) benchmarks/.peers .pytest_cache .mypy_cache .ruff_cache .hypothesis $(SITE) build dist *.egg-info
