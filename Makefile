# Everything a person or the continuous integration runs, from a fresh clone with Python 3.11+, make and git.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check fix docs test-slow bench clean

# The first interpreter that is new enough; another one: make PYTHON=/path/to/python3.12 demo
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11 python; do \
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	echo "$$candidate"; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT := demo-out
TIMED := $(BIN)/python tools/timed.py

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.core.stamp ## transcribe the shipped clips and print WER, RTF and coverage
	@$(BIN)/speechadapt transcribe speechadapt/demo/clips -o $(DEMO_OUT) --overwrite
	@echo "The transcripts are in $(DEMO_OUT)/; $(DEMO_OUT)/transcripts.jsonl has one line for each clip."
	@if [ -d speechadapt/pretrained/mini-restorer ]; then \
		$(BIN)/speechadapt restore speechadapt/demo/noisy -o $(DEMO_OUT)/restored --overwrite && \
		echo "Two noisy clips, restored, are in $(DEMO_OUT)/restored/."; fi

test: $(VENV)/.dev.stamp ## run the default tests (no network, no data, CPU)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadscope

check: $(VENV)/.dev.stamp ## formatting, lint, types, layers, lengths and links, generated docs; the time of each
	@$(TIMED) "format" $(BIN)/ruff format --check .
	@$(TIMED) "lint" $(BIN)/ruff check .
	@$(TIMED) "types" $(BIN)/mypy
	@$(TIMED) "layers" $(BIN)/pytest -q -p no:cacheprovider tests/repo/test_layers.py tests/repo/test_docs.py
	@$(TIMED) "docs" $(BIN)/python tools/gen_docs.py --check
	@$(TIMED) "methods" $(BIN)/python tools/gen_methods.py --check
	@$(TIMED) "results" $(BIN)/python tools/gen_results.py --check

fix: $(VENV)/.dev.stamp docs ## format, mend what lint can mend, write the generated docs
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.dev.stamp ## write the generated docs
	@$(BIN)/python tools/gen_docs.py
	@$(BIN)/python tools/gen_methods.py
	@$(BIN)/python tools/gen_results.py

test-slow: $(VENV)/.dev.stamp ## run the tests that take minutes
	@$(BIN)/pytest -m 'slow and not gpu and not network'

bench: $(VENV)/.dev.stamp ## compare speed with the transformers pipeline
	@$(BIN)/python tools/bench.py

clean: ## remove the environment, outputs and caches
	rm -rf $(VENV) $(DEMO_OUT) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "speechadapt needs Python 3.11 or newer; found none. Name one: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps follow pyproject.toml, so a second run installs nothing.
$(VENV)/.core.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev.stamp: pyproject.toml $(VENV)/.core.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
