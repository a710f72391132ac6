# `make results`: set up, then the whole pipeline; `make reports`: its tables and
# figures again from the result files in git; `make test`: set up, then the tests. All can be
# repeated at no cost. PYTHON names another interpreter (3.11 to 3.13); ARGS goes to the tool.
PYTHON ?= python3
ARGS ?=
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: help results reports test check clean-environment

help:
	@echo "make results   set up .venv, then run the pipeline (profile of params.yaml: quick)"
	@echo "make reports   set up .venv, then make every table and figure of reports/ again"
	@echo "make test      set up .venv, then run the tests"
	@echo "make check     set up .venv, then lint and types"

results: .venv/installed
	@echo "== the whole pipeline; what is made already is not made again"
	snakemake --cores all results $(ARGS)
	python -m workflow.tools.overview
	@echo "== done: see reports/index.html and reports/*/results.md, outputs/, and 'mlflow ui'"

reports: .venv/installed
	@echo "== every table and figure again, from the result files beside them; git shows no change"
	@for runs in reports/*/runs; do \
	  profile=$$(basename $$(dirname $$runs)); \
	  python -m workflow.tabulate --profile $$profile --outputs $$runs --partial || exit 1; \
	done
	python -m workflow.tools.overview

test: .venv/installed
	@echo "== the tests, one process a core; '-m slow' has the long ones"
	OMP_NUM_THREADS=1 python -m pytest -q -n auto --dist loadfile $(ARGS)

check: .venv/installed
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile
	mypy

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  f"Python {v[0]}.{v[1]} is not 3.11, 3.12 or 3.13: make PYTHON=python3.11")'
	@echo "== setting up .venv, once: some minutes and 4 GB of disk (more where pip has PyTorch with CUDA)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean-environment:
	rm -rf .venv
