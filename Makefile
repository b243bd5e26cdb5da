# Two commands matter to a newcomer: `make demo` and `make test`. Both create .venv and install what they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# A folder of real e-mission days (*.json.gz), if there is one; see README.md.
EMLAB_PHONE_DAYS ?= $(firstword $(wildcard data/phone-days ../shared/data/emission/input))
export EMLAB_PHONE_DAYS
PYTEST_ARGS ?=
DEMO_ARGS   ?= --users 6 --days 2 --seed 1 --out results/demo

.PHONY: demo test check lint format python

demo: $(VENV)/demo.stamp
	$(BIN)/emlab demo $(DEMO_ARGS)

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint
	$(BIN)/python -m pytest -q tests/unit

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "emlab needs Python 3.11 or newer: sudo apt-get install python3 python3-venv (or: make PYTHON=/path/to/python3.11)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "this Python cannot create virtual environments: sudo apt-get install python3-venv"; exit 1; }

$(BIN)/python: | python
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[mongod]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/demo.stamp
