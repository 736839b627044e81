# Every target does its own set-up: `make train` and `make test` work on a fresh machine that has
# Python 3.11 or newer and make.
PYTHON ?= python3
VENV ?= .venv
ALGO ?= npg
ENV ?= Walker2d-v4
TASK ?= $(ENV)
ARGS ?=
PYTEST_ARGS ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help train reproduce test test-slow check lint format types contracts bench docs clean

help: ## show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.user: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[benchmark,plot,record,tensorboard]'
	@touch $@

$(VENV)/.developer: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.user

train: $(VENV)/.user ## train and evaluate: make train ALGO=npg ENV=Walker2d-v4 ARGS='--seed 0'
	$(BIN)/python -m zoo.train --algo $(ALGO) --env $(ENV) $(ARGS)

reproduce: $(VENV)/.user ## train a row of docs/benchmark.md again: make reproduce TASK=Walker2d-v4 ALGO=npg
	$(BIN)/python -m zoo.benchmark reproduce --algo $(ALGO) --env $(TASK) $(ARGS)

test: $(VENV)/.developer ## the fast tests, three to four minutes on two cores
	$(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

test-slow: $(VENV)/.developer ## the tests that train for minutes or measure every task
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

check: PYTEST_ARGS += --cov --cov-report=term
check: lint types contracts docs test ## everything that continuous integration runs

lint: $(VENV)/.developer ## style, formatting and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(VENV)/.developer ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.developer ## strict type checking
	$(BIN)/mypy

contracts: $(VENV)/.developer ## who may import whom
	$(BIN)/lint-imports

bench: $(VENV)/.developer ## measure ours beside its peers; writes benchmarks/results
	$(BIN)/python -m benchmarks.run

docs: $(VENV)/.developer ## build the documentation into build/docs
	$(BIN)/mkdocs build --strict --site-dir build/docs

clean: ## remove the virtual environment and what tools leave behind
	rm -rf $(VENV) build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
