# Every target sets up .venv first (silently once that is done). `make help` lists what there is.
# TEST_ARGS goes to pytest: make test TEST_ARGS='tests/unit -k life'

VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
JOBS ?= 2
TEST_ARGS ?=
PYTEST = $(BIN)/pytest -n $(JOBS) $(TEST_ARGS)
# Suites with a target of their own; `make test` leaves them out.
MARKERS ?= not soak and not kill
SOURCES := pyproject.toml runtime/pyproject.toml dev/environment.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-postgres test-minio test-kill test-runtime coverage soak bench lint format types check lock lock-check wheels clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready-dev ## Make .venv from the lock file (every target does so by itself)

$(VENV)/.ready-dev: requirements.lock $(SOURCES)
	@dev/setup dev

$(VENV)/.ready-demo: requirements-demo.lock $(SOURCES)
	@dev/setup demo

demo: $(VENV)/.ready-demo ## Train a model, run the main job on 20,000 records, show what comes out
	@$(BIN)/python -m tidemill.demo

test: setup ## Run the tests (SQLite, and each real server whose TIDEMILL_TEST_* variable is set)
	$(PYTEST) -m "$(MARKERS)"

test-postgres: setup ## Run what needs PostgreSQL, on a real one that is started for it
	dev/with-servers postgres -- $(PYTEST) -m "postgres and not s3 and not soak and not kill"

test-minio: setup ## Run what needs S3, on a real MinIO that is started for it
	dev/with-servers minio postgres -- $(PYTEST) -m "s3 and not soak and not kill"

test-kill: setup ## Run the seeded sample of the tests that kill server and instances
	dev/with-servers postgres minio -- $(PYTEST) -m "kill and not soak"

test-runtime: setup ## Run the runtime's tests on the oldest and the newest Python, without the control plane
	dev/test-runtime $(TEST_ARGS)

# What measures memory would measure the tracer.
coverage: setup ## Fail unless the tests take every branch of the domain
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run --source=src/tidemill/domain -m pytest -q -n $(JOBS) -m "$(MARKERS) and not postgres and not s3" -k 'not memory' \
		$$(grep -l 'tidemill\.domain' tests/unit/test_*.py)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --include='src/tidemill/domain/*' --fail-under=100

soak: setup ## Run the random suites at length: 100 kills, many more examples
	dev/with-servers postgres minio -- env TIDEMILL_TEST_PROFILE=soak $(BIN)/pytest $(TEST_ARGS) -m "soak or kill" --timeout 3600

bench: setup ## Measure speed and memory on this machine
	$(BIN)/python -m benchmarks

lint: setup ## Check style, the layers between modules, and that the locks are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: setup ## Format the code and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: setup ## Check types of both packages (mypy, strict)
	$(BIN)/mypy

check: lint types lock-check test ## Everything that has to pass before a change is proposed, but for the real servers

lock: setup ## Write the lock files anew after pyproject.toml has changed (UPGRADE=1: newest versions)
	@dev/lock $(if $(UPGRADE),--upgrade)

lock-check: setup ## Fail when a lock file does not satisfy pyproject.toml
	@dev/lock --check

wheels: setup ## Build both wheels into dist/, install them in an empty environment and work from there
	dev/wheels

clean: ## Remove what was made: environment, caches, wheels
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .import_linter_cache .demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
