# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# As many test files at once as there are cores, but no more than four: each has servers of its own.
TOGETHER := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-clients bench campaign mutants fmt lint types imports check pins clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready ## the environment with everything pinned

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; say which with PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module here: apt-get install python3-venv"; exit 1; }
	@echo "Installing what requirements/dev.txt pins into $(VENV); half a minute."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## store, emulator and gateway; 60 jobs from three shares, live
	$(BIN)/gateway dev --demo

test: setup ## all tests, a few at a time; PYTEST="-n 0 -x tests/api" for some
	$(BIN)/python -m pytest $(TOGETHER) $(PYTEST)

test-clients: setup ## boto3, the AWS CLI and SageMaker's SDKs, in environments of their own: 900 MB, minutes the first time
	$(BIN)/python -m tests.clients.environments
	$(BIN)/python -m pytest tests/clients $(PYTEST)

bench: setup ## what is promised in figures, with the bars; BENCH="main_job batches" for some
	$(BIN)/python -m tests.bench $(BENCH)

campaign: setup ## hours of bad luck in minutes, and a judge; SEED=1 MINUTES=30 FAULTS=kill_store,drop STORE=standalone
	$(BIN)/python -m tests.campaign $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(FAULTS),--faults $(FAULTS)) $(if $(STORE),--store $(STORE)) $(CAMPAIGN)

mutants: setup ## bugs put in one at a time, and the campaign that finds each
	$(BIN)/python -m tests.campaign.hunt $(MUTANTS)

fmt: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet . || true

lint: setup ## format and lint, checked
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup ## mypy, strict
	$(BIN)/mypy

imports: setup ## the arrow of imports
	$(BIN)/lint-imports

check: lint types imports test ## all that .ci/run does

pins: setup ## resolve versions and hashes anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra dev --group gate -o requirements/dev.txt pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url -o requirements/runtime.txt pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url -o requirements/build.txt requirements/build.in
	for client in requirements/clients/*.in; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url -o $${client%.in}.txt $$client || exit 1; \
	done

clean: ## take away what was made
	rm -rf $(VENV) .venv-clients .gateway .mypy_cache .ruff_cache .pytest_cache .hypothesis
