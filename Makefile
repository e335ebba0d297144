# Sonomark: `make help` lists the targets.
PYTHON ?= python3
RUN := .venv/bin
DEV := .venv-dev/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help run test check unit acceptance fuzz browser bench viewer sbom clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/installed ## everything in one go, with sample studies: http://127.0.0.1:8000
	$(RUN)/sonomark up --demo

test: .venv-dev/installed check unit ## what CI runs: checks and all fast tests

check: .venv-dev/installed ## style, types and who may import whom
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/mypy
	$(DEV)/lint-imports

unit: .venv-dev/installed ## all fast tests
	$(DEV)/python -m pytest -m "not acceptance and not browser"

acceptance: .venv-dev/installed .venv-dev/peers ## real processes, real peers, real faults (about 30 minutes)
	$(DEV)/python -m pytest -m acceptance

fuzz: .venv-dev/installed ## 100,000 damaged inputs to the reader and to the door
	$(DEV)/python -m tests.fuzz

browser: .venv-dev/installed .venv-dev/peers ## the dashboard in a real Chromium
	$(DEV)/python -m pytest -m browser

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sonomark needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(RUN)/python -m pip install --quiet --editable '.[cpu]'
	@touch $@

.venv-dev/installed: pyproject.toml .venv-dev/peers
	$(PYTHON) -m venv .venv-dev
	# By this very version first: any looser request may bring gigabytes of CUDA.
	$(DEV)/python -m pip install --quiet torch==2.13.0
	$(DEV)/python -m pip install --quiet --editable '.[cpu,ocr,train,dev]'
	@touch $@

# Tests speak to real peers: DCMTK, Redis, PostgreSQL, Chromium from the distribution.
.venv-dev/peers: deploy/test-peers.txt
	deploy/install-test-peers.sh
	@mkdir -p .venv-dev && touch $@

viewer: ## the dashboard's scripts, from service/review/viewer to service/review/static (needs npm)
	npm ci --prefix service/review/viewer --no-audit --no-fund
	npm run --prefix service/review/viewer check
	npm run --prefix service/review/viewer build

sbom: ## what the images contain: dist/sbom-*.cdx.json (CycloneDX)
	$(PYTHON) -m venv .venv-sbom && .venv-sbom/bin/pip install --quiet 'cyclonedx-bom>=7,<8'
	mkdir -p dist
	.venv-sbom/bin/cyclonedx-py requirements deploy/requirements.lock --pyproject pyproject.toml --output-file dist/sbom-cpu.cdx.json
	.venv-sbom/bin/cyclonedx-py requirements deploy/requirements-gpu.lock --pyproject pyproject.toml --output-file dist/sbom-gpu.cdx.json

clean: ## remove environments and caches, never data
	rm -rf .venv .venv-dev .venv-sbom .mypy_cache .ruff_cache .pytest_cache .hypothesis
