# `make help` lists the targets. Each sets up .venv first, once.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup train test test-all lint format dashboard audit bench notebooks clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY) ## install everything into .venv, at the versions of requirements.lock

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) --version); take Python 3.11 to 3.13: make PYTHON=python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@

train: $(READY) ## train on the embedded data; change anything: make train ARGS="network=fpn optimizer.lr=1e-3"
	$(BIN)/python -m src.train $(ARGS)

test: $(READY) ## the tests, under 10 minutes on 2 cores
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal $(ARGS)

test-all: $(READY) ## the tests and the longer ones
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal -m 'slow or not slow' $(ARGS)

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dashboard: $(READY) ## TensorBoard over all runs, on this machine only; another port: make dashboard ARGS="--port 6007"
	$(BIN)/tensorboard --logdir logs --host localhost $(ARGS)

audit: $(READY) ## known vulnerabilities of the packages in requirements.lock; asks the package index
	@test -x $(VENV)/audit/bin/pip-audit || \
	  { $(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit; }
	$(VENV)/audit/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip $(ARGS)

bench: $(READY) ## time a training step beside the rival's: make bench ROOT=path/to/camvid
	$(BIN)/python benchmarks/camvid_step.py --root $(ROOT) $(ARGS)

notebooks: $(READY) ## run the notebooks from a clean kernel
	$(BIN)/python -m pytest -m 'slow or not slow' tests/test_notebooks.py $(ARGS)

clean: ## remove caches and build outputs; logs/ and .venv/ stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
