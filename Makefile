# make demo    set up, then the whole job on scikit-learn's digits
# make test    set up, then the tests
# make lint    set up, then ruff and mypy
# make setup   only the set-up: .venv with the project and everything that it needs
# make clean   remove what make made
#
# Another Python than python3: make PYTHON=/path/to/python3.12 …
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 10) and f"Python 3.10 or newer is needed, $(PYTHON) is {v}; name another with: make PYTHON=/path/to/python3.12")'
	@echo "== creating $(VENV) and installing dsonas-hw with everything it needs (some GB, a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@echo "== the whole job on scikit-learn's digits: profile this machine, search under a budget, retrain,"
	@echo "== export, measure, report; about three minutes on two cores"
	@rm -rf $(DEMO)
	$(BIN)/dsonas-hw run --dataset digits --budget mac=150k,latency=0.2ms --out $(DEMO)
	@echo "== done: open $(DEMO)/report.html; the verdict is in $(DEMO)/validation.json"

test: $(STAMP)
	@echo "== running the tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info $(DEMO)
