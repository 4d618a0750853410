# What people and CI both call. `make run` and `make test` need nothing prepared but Python 3.11 to 3.13.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# What a trading PC needs of uv.lock; it travels in the wheel, to the kit that the server hands out.
KIT_LOCK := relay/windows/requirements.txt
EXPORT_KIT_LOCK = $(BIN)/uv export --quiet --frozen --no-dev --extra collect --no-emit-project --no-header --no-annotate

# Container images forbid Python to save what it compiled; every process that the tests start would compile us again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup kafka run check format test test-rare test-full test-newest fuzz audit bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Tickpipe needs Python 3.11, 3.12 or 3.13; this is %d.%d. Name another with: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Making the environment in $(VENV): about 130 packages, once and after every change of uv.lock" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	@# On a terminal uv shows what it downloads; elsewhere that would be a line for every package.
	@quiet=; [ -t 2 ] || quiet=--quiet; UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync $$quiet --frozen --all-extras --inexact --compile-bytecode --python $(BIN)/python
	@touch $@

setup: $(STAMP) ## make the environment in .venv

run: setup ## start the whole pipeline on this machine with a simulated EA (Ctrl-C stops it)
	@exec $(BIN)/tickpipe up --demo

check: setup ## report on format, lint, types and the lock file
	$(BIN)/uv lock --check --quiet
	@$(EXPORT_KIT_LOCK) | diff -q - $(KIT_LOCK) >/dev/null || { echo "$(KIT_LOCK) is not what uv.lock says: make format" >&2; exit 1; }
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## edit what the formatter and the linter can mend, and export what the kit needs of uv.lock
	$(EXPORT_KIT_LOCK) > $(KIT_LOCK)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

kafka: setup ## download Kafka and prepare it to start fast, if that was never done on this machine
	@$(BIN)/python -m tickpipe.embedded.kafka

test: setup kafka ## run the tests on real Kafkas and PostgreSQLs, six files at a time
	$(BIN)/pytest -n 6 --dist loadfile --no-loadscope-reorder

test-rare: setup kafka ## run what `make test` leaves out, but for the fault suite and the migration of a million rows
	TICKPIPE_TESTS=full $(BIN)/pytest -n 6 --dist loadfile --no-loadscope-reorder -m full \
	    --deselect "tests/migration/test_migration.py::test_every_step_of_the_page_holds[a million]" \
	    tests/unit tests/integration tests/operations tests/migration tests/kubernetes

test-full: setup kafka ## run every test there is, one file after the other (more than an hour)
	TICKPIPE_TESTS=full $(BIN)/pytest

test-newest: setup ## run the contract tests on the newest aiokafka and faust-streaming, in an environment of their own
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(BIN)/uv export --quiet --frozen --all-extras --no-hashes --no-emit-project \
	    | grep -vE '^(aiokafka|faust-streaming)==' > $$folder/others.txt && \
	$(BIN)/uv venv --quiet --python $(BIN)/python $$folder/venv && \
	$(BIN)/uv pip install --quiet --python $$folder/venv -r $$folder/others.txt aiokafka faust-streaming && \
	$(BIN)/uv pip install --quiet --python $$folder/venv --no-deps --editable . && \
	$(BIN)/uv pip list --quiet --python $$folder/venv | grep -E '^(aiokafka|faust-streaming) ' && \
	TICKPIPE_TESTS=full $$folder/venv/bin/python -m pytest -m contract

fuzz: EXAMPLES ?= 5000
fuzz: setup ## give every reader and route generated input for ten minutes (EXAMPLES=500 for one)
	TICKPIPE_TEST_EXAMPLES=$(EXAMPLES) $(BIN)/pytest -n 2 tests/security/test_fuzz.py

audit: setup ## ask the advisory database about the locked packages (needs the internet)
	@list=$$(mktemp) && trap 'rm -f "$$list"' EXIT && \
	$(BIN)/uv export --quiet --frozen --no-dev --all-extras --no-emit-project > $$list && \
	$(BIN)/uv tool run --quiet 'pip-audit>=2.9,<3' --requirement $$list --disable-pip --require-hashes --strict

bench: setup ## measure the fold against reading alone, the sink against a bare COPY, the producer against no work
	$(BIN)/python -m benchmarks.fold
	$(BIN)/python -m benchmarks.fold --frame 200
	$(BIN)/python -m benchmarks.sink
	$(BIN)/python -m benchmarks.ingest

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

include benchmarks/targets.mk compose/targets.mk k8s/targets.mk relay/targets.mk tests/faults/targets.mk
