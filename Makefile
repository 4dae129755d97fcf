# Verbs: demo, test, test-deep, chaos, mutations, check, fix, bases, clean. `make install` alone prepares .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

export OMP_NUM_THREADS ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: install demo test test-fast test-deep chaos mutations check fix bases lock clean

$(READY): requirements.lock pyproject.toml
	$(PYTHON) tools/check_python.py
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

install: $(READY)

demo: $(READY)  ## the whole job on this machine: render, train, score, label
	tools/debian_packages.sh --optional libllvm19
	$(BIN)/python pipelines/demo.py --out demo

test: $(READY)  ## unit, parity and integration tests, on real services
	tools/debian_packages.sh libllvm19 chromium fonts-dejavu-core postgresql
	$(PYTEST) -m "not deep"

test-fast: $(READY)  ## unit and parity tests only
	$(PYTEST) -m "not deep" tests/unit tests/parity

test-deep: $(READY)  ## what takes longest, and every combination where `make test` has the telling ones
	tools/debian_packages.sh libllvm19 chromium fonts-dejavu-core postgresql
	$(PYTEST) -m deep

chaos: $(READY)  ## attacks on every stage at every phase (hours; goes on where it ended)
	$(BIN)/python -m tests.chaos

mutations: $(READY)  ## ten thousand damaged pictures, each right or refused (minutes)
	$(BIN)/python -m tests.mutations

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bases: $(READY)  ## rebuild the packaged small models (hours; see e2eft/bases/README.md)
	tools/build_bases.sh

lock: $(READY)  ## pin what is installed
	$(BIN)/python tools/lock.py > requirements.lock

clean:
	rm -rf .venv demo build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
