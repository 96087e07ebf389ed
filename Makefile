# `make demo` and `make test` set up everything they need in .venv; only Python (3.11 or newer) and make must be there.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: install demo test lint format docs bench
install: .venv/installed
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alexnet needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/alexnet demo
	@echo "\`source $(BIN)/activate\` puts the command alexnet on your path"

# Two processes of one thread each take two thirds of the time of one process with both cores. The golden numbers, too,
# were recorded with one thread.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site is in build/site. No page loads anything from elsewhere. The variable silences an advertisement.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# PHOTOGRAPHS=photos.zip times it on your own; half an hour on two cores.
bench: install
	$(BIN)/python benchmarks/all.py $(PHOTOGRAPHS)
