# `make demo` and `make test` set everything up first: a machine with Python 3.11+ and a package registry is enough.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint format bench clean

setup: .venv/.ready

# torch first and by its exact version: that takes the CPU build; an open range takes a CUDA build of several GB.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "roadtest needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[offline,postgres,graph,dev]'
	touch $@

demo: setup
	$(BIN)/roadtest run sweeps/demo.yaml

test: setup
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m tests.benchmarks.run

clean:
	rm -rf .roadtest roadtest.db* roadtest-report build dist
