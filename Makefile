# `make help` lists the targets. Each sets up .venv first, once.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup train test test-all test-lowest lint format docs dashboard lock audit sbom bench notebooks clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY) ## install everything into .venv, at the versions and hashes of requirements.lock

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) --version); take Python 3.11 to 3.13: make PYTHON=python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

train: $(READY) ## train on the embedded data; change anything: make train ARGS="network=fpn optimizer.lr=1e-3"
	$(BIN)/python -m src.train $(ARGS)

test: $(READY) ## the tests, under 10 minutes on 2 cores
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal $(ARGS)

test-all: $(READY) ## the tests and the longer ones
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal -m 'slow or not slow' $(ARGS)

test-lowest: $(VENV)/tools/.ready ## the tests with the oldest versions that pyproject.toml allows, in .venv/lowest, made anew
	$(VENV)/tools/bin/uv pip compile pyproject.toml --extra dev --resolution lowest-direct --no-annotate --quiet \
	  --python $(VENV)/tools/bin/python --output-file $(VENV)/lowest.txt
	$(VENV)/tools/bin/uv venv --quiet --clear --python $(VENV)/tools/bin/python $(VENV)/lowest
	$(VENV)/tools/bin/uv pip install --quiet --python $(VENV)/lowest --requirement $(VENV)/lowest.txt
	$(VENV)/tools/bin/uv pip install --quiet --python $(VENV)/lowest --no-deps --editable .
	$(VENV)/lowest/bin/python -m pytest --numprocesses=2 --dist=worksteal $(ARGS)

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## the documentation site, in build/docs/index.html; needs no network
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --clean

dashboard: $(READY) ## TensorBoard over all runs, on this machine only; another port: make dashboard ARGS="--port 6007"
	$(BIN)/tensorboard --logdir logs --host localhost $(ARGS)

lock: $(VENV)/tools/.ready ## renew requirements.lock after a change of pyproject.toml; newer versions: make lock ARGS=--upgrade
	$(VENV)/tools/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --quiet --custom-compile-command 'make lock' --output-file requirements.lock $(ARGS)

audit: $(VENV)/tools/.ready ## known vulnerabilities of the packages in requirements.lock; fails where one cannot be looked up
	$(VENV)/tools/bin/pip-audit --strict --requirement requirements.lock --disable-pip $(ARGS)

sbom: $(READY) $(VENV)/tools/.ready ## everything that is installed, with versions and licences, as sbom.json (CycloneDX)
	$(VENV)/tools/bin/cyclonedx-py environment --output-reproducible --output-file sbom.json $(ARGS) $(BIN)/python

# In an environment of their own: what they need is no part of the program.
$(VENV)/tools/.ready: Makefile
	@test -x $(VENV)/tools/bin/python || $(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.7' 'cyclonedx-bom>=7,<8' 'uv>=0.8'
	@touch $@

bench: $(READY) ## what takes how long, beside rivals: docs/benchmarks.md; CamVid's rows too: make bench ROOT=path/to/camvid
	$(BIN)/python benchmarks/table.py $(if $(ROOT),--root $(ROOT)) $(ARGS)

notebooks: $(READY) ## run the notebooks from a clean kernel
	$(BIN)/python -m pytest -m 'slow or not slow' tests/test_notebooks.py $(ARGS)

clean: ## remove caches and build outputs; logs/ and .venv/ stay
	rm -rf build dist .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
