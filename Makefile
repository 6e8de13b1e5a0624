# Everything a newcomer or CI runs. Needs Python >= 3.11, make and, the first time, a network.
#   make demo    taskq at work on real input: every file of the standard library, on all cores
#   make check   lint, types, import rules and a tenth of the tests: for each commit
#   make test    everything that must hold: lint, types, import rules, all tests
# PYTHON=/path/to/python3 chooses the Python, ARGS="..." goes to pytest or to the bench.

PYTHON ?=
VENV ?= .venv
ARGS ?=
# Processes that run tests side by side; tests wait much, so there are more of them than cores.
JOBS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
# Faults and interrupts come at moments that no test can choose, and beside other load: a test that fails is run up to
# twice more and named in the summary; one that fails three times has failed.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --reruns 2 -r aR
BIN := $(VENV)/bin
export PYTHON

.PHONY: demo check test test-loaded soak rq-suite lint format bench bench-redis bench-sqlite bench-payload clean help
.PHONY: venv venv-dev venv-bench venv-bench-redis venv-bench-sqlite
.NOTPARALLEL:
.DEFAULT_GOAL := help

heading = @printf '\n---- %s ----\n' '$(1)'

help:  ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

demo: venv  ## measure every file of the standard library on all cores, with a progress bar
	@$(BIN)/python -m examples.demo

check: lint  ## style, types, import rules and a tenth of the tests
	$(call heading,pytest)
	@$(PYTEST) --tenth $(ARGS)

test: lint  ## everything that must hold, as in CI
	$(call heading,pytest)
	@$(PYTEST) $(ARGS)

test-loaded: venv-dev  ## the tests beside a program that keeps each core busy, hangups ignored as under nohup
	@trap '' HUP; $(BIN)/python -m tests.busy $(PYTEST) $(ARGS)

soak: venv-dev  ## the long runs that make test leaves out: many minutes
	@$(BIN)/python -m pytest -m soak -o faulthandler_timeout=7200 $(ARGS)

rq-suite: venv-dev  ## RQ's own tests with its worker replaced by ours; needs redis-server
	@$(BIN)/python tests/rq_suite/run.py

lint: venv-dev  ## style, types and import rules
	@PATH="$(BIN):$$PATH" .ci/side-by-side "ruff check" "ruff format --check" mypy "lint-imports --no-logo --no-cache"

format: venv-dev  ## let ruff put the files in order
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: venv-bench  ## taskq and pools of processes on the same work
	@$(BIN)/python -m bench $(ARGS)

bench-redis: venv-bench-redis  ## taskq and task queues on Redis; needs redis-server
	@$(BIN)/python -m bench redis $(ARGS)

bench-sqlite: venv-bench-sqlite  ## taskq and queues that need no server
	@$(BIN)/python -m bench sqlite $(ARGS)

bench-payload: venv-bench  ## values of 1 MiB to 1 GiB, in and out, beside ProcessPoolExecutor
	@$(BIN)/python -m bench.payload $(ARGS)

clean:  ## remove all that make and the tools have made
	rm -rf $(VENV) $(VENV)-saq build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find taskq executors tests examples bench -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@.ci/make-venv $(VENV)

venv-dev:
	@.ci/make-venv $(VENV) dev

venv-bench:
	@.ci/make-venv $(VENV) bench

venv-bench-redis:
	@.ci/make-venv $(VENV) bench-redis
	@.ci/make-venv $(VENV)-saq bench-saq

venv-bench-sqlite:
	@.ci/make-venv $(VENV) bench-sqlite
