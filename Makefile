# Pillion. `make` alone lists what there is. All set-up happens by itself, inside .venv.

PYTHON ?= python3
ARGS ?=
# Most tests wait for another process; three of them at a time use two cores well.
LANES ?= 3

VENV := .venv
RUN := $(VENV)/bin/python
BASE := $(VENV)/.ready-base
TEST := $(VENV)/.ready-test
PIP := $(RUN) -m pip --disable-pip-version-check -qq

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test chaos fuzz soak check lint types format docs bench bench-smoke bench-page clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BASE)  ## see it work: a small program, its jobs and its worker
	@$(RUN) examples/stdlib_census/run.py $(ARGS)

test: $(TEST)  ## run the tests (ARGS="-k retry"; PILLION_TEST_ALL=1 forbids skipping)
	@$(RUN) -m pytest -n $(LANES) --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: $(TEST)  ## break everything again and again, and account for every job (ARGS="--only T1,T4 --trials 300")
	@$(RUN) -m tests.crash $(ARGS)

fuzz: $(TEST)  ## a million hostile inputs through a worker (ARGS="--inputs 5000 --seed 7")
	@$(RUN) -m tests.fuzz $(ARGS)

soak: $(TEST)  ## two hours of work and faults, and what grows meanwhile (ARGS="--minutes 10 --seed 7 --out soak.json")
	@$(RUN) -m tests.crash.soak $(ARGS)

check: lint types test  ## everything that must be green: lint, types, test

lint: $(TEST)  ## style, format and the import contracts
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check --quiet . || { echo "make format would change the files above" >&2; exit 1; }
	@$(VENV)/bin/lint-imports --no-logo

types: $(TEST)  ## mypy --strict and pyright
	@$(RUN) -m mypy
	@$(RUN) -m pyright

format: $(TEST)  ## let ruff rewrite what it can
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

docs: $(TEST)  ## write docs/compatibility.md from the rules and the tests that prove them
	@$(RUN) -m tests.compat.page

bench: $(TEST)  ## Pillion beside Sidekiq and eight Python peers, some 15 minutes (ARGS="--only drain --rounds 3")
	@$(RUN) -m bench $(ARGS)

bench-smoke: $(TEST)  ## the benchmark in less than a minute, with one peer: does it still work
	@$(RUN) -m bench --smoke $(ARGS)

bench-page: $(TEST)  ## write docs/benchmarks.md from bench/results/published.json
	@$(RUN) -m bench --page $(ARGS)

clean:  ## remove .venv, caches and builds
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(wildcard src tests examples bench) -name __pycache__ -type d -prune -exec rm -rf {} +

# Two stamps: the demo need not wait for the test tools.
$(BASE): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer, or name one: make PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Pillion needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.13" >&2; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) -V) ..." >&2
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(TEST): $(BASE)
	@echo "setting up the test tools ..." >&2
	@$(PIP) install --editable '.[all]' --group test
	@touch $@
