# make demo   set-up and the whole benchmark on a made-up shop
# make test   set-up and the tests
# make check  set-up, style and types
# make bench  set-up and the timings, kept in workspace/benchmarks.txt
# make fuzz   set-up, and a million broken lines for the readers of corpora; `make fuzz SEED=7` for others
# make readme the README's table of tokenizers, from recipes.py
# make docs   set-up and the documentation as a site, in site/
.PHONY: demo test check bench fuzz readme docs clean
.DEFAULT_GOAL := demo

PYTHON ?= python3
VENV := .venv
SEED ?= 0
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := torch==2.13.0
export OMP_WAIT_POLICY := PASSIVE

demo: $(READY)
	$(BIN)/gritrec run pipelines/experiments/demo.yaml

test: $(READY)
	$(BIN)/pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/pip install -q -c constraints.txt -e ".[bench]"
	$(BIN)/python -m tests.benchmarks

fuzz: $(READY)
	$(BIN)/pip install -q -c constraints.txt -e ".[fuzz]"
	$(BIN)/python -m tests.fuzz --seed $(SEED)
	$(BIN)/python -m tests.fuzz --atheris --seed $(SEED)

readme: $(READY)
	$(BIN)/python tests/test_readme.py

docs: $(READY)
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV)

# A machine with a GPU wants PyTorch's own CUDA build. Elsewhere that build only costs gigabytes: first a
# wheel that pip finds locally is tried, then PyTorch's CPU index, and at last the package index.
$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once, about two minutes) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed: make clean, then make PYTHON=python3.12")'
	$(BIN)/python -c 'import torch' 2>/dev/null || { command -v nvidia-smi >/dev/null && $(BIN)/pip install -q $(TORCH); } \
		|| $(BIN)/pip install -q --no-index --no-deps $(TORCH) 2>/dev/null \
		|| $(BIN)/pip install -q --retries 1 --timeout 15 --index-url https://download.pytorch.org/whl/cpu $(TORCH) 2>/dev/null \
		|| $(BIN)/pip install -q $(TORCH)
	$(BIN)/pip install -q -c constraints.txt -e ".[cpu,minilm,dev]"
	@touch $@
	@echo "Ready."
