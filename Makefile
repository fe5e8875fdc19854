# survpack. `make` alone lists what there is to do.
PYTHON ?= python3
SHELL := /bin/bash
BIN := .venv/bin
READY := .venv/.ready

# bytecode is worth keeping: without it every stage compiles its imports anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help report test lab lint clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

report: $(READY)  ## the study, to reports/paper.html   (this run only: COHORTS="mets sts kits" PROFILE=smoke|default|full)
	@SURVPACK_OWNER=$$PPID exec $(BIN)/python -m survpack report --cohorts "$(COHORTS)" --profile "$(PROFILE)"

test: $(READY)  ## lint and tests   (SURVPACK_DATA=folder for those on real patients)
	@$(BIN)/ruff check survpack tests benchmarks && $(BIN)/ruff format --check survpack tests benchmarks
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal --durations=10

lab: $(READY)  ## JupyterLab on the notebooks
	@eval "env $$($(BIN)/python -m survpack.machine) $(BIN)/jupyter lab notebooks"

lint: $(READY)  ## format and lint
	@$(BIN)/ruff format survpack tests benchmarks && $(BIN)/ruff check --fix survpack tests benchmarks

clean:  ## remove what the pipeline made; your data, the environment and DVC's cache stay
	@rm -rf data/derived reports/notebooks reports/figures reports/tables reports/cards reports/sections reports/site _variables.yml

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "survpack needs Python 3.11 or newer as $(PYTHON): install it, or name it with PYTHON=…" >&2; exit 2; }
	@echo "setting up .venv (three minutes, 3 GB, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock | awk ' \
	  /^Collecting/ && ++n % 40 == 0 { print "  " n " packages found" } \
	  /^Installing/ { print "  installing " n " packages" } { fflush() }'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
