# Each target first sets up what it needs in .venv.
#
# make demo      the whole benchmark on a made-up shop
# make test      the tests, but for the slow ones
# make test-all  all tests
# make coverage  all tests, and which lines they run
# make check     style and types
# make bench     timings, kept in workspace/benchmarks.txt
# make fuzz      a million broken lines for the readers of corpora; `make fuzz SEED=7` for others
# make faults    what a run survives: kills, full disks, damaged files; the table of docs/reliability.md (an hour)
# make readme    the README's table of tokenizers, from recipes.py
# make docs      the documentation as a site, in site/
.PHONY: demo test test-all coverage check bench fuzz faults readme docs clean
.DEFAULT_GOAL := demo

PYTHON ?= python3
VENV := .venv
SEED ?= 0
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
TORCH := torch==2.13.0
comma := ,
# As many test processes as cores, a thread each; tests that share a server or a fitted model stay together.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadgroup
export OMP_WAIT_POLICY := PASSIVE

demo: $(READY)
	$(BIN)/gritrec run pipelines/experiments/demo.yaml

test: $(DEV)
	$(PYTEST) -m "not slow"

test-all: test
	$(PYTEST) -m slow

coverage: $(DEV)
	$(PYTEST) --cov --cov-report=term-missing:skip-covered --cov-report=xml

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV)
	$(call install,bench)
	$(BIN)/python -m tests.benchmarks

fuzz: $(DEV)
	$(call install,fuzz)
	$(BIN)/python -m tests.fuzz --seed $(SEED)
	$(BIN)/python -m tests.fuzz --atheris --seed $(SEED)

faults: $(DEV)
	$(BIN)/python -m tests.faults --seed $(SEED) --table docs/reliability.md

readme: $(DEV)
	$(BIN)/python tests/test_readme.py

docs: $(READY)
	$(call install,docs)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV)

# uv installs in seconds what takes pip minutes; where it cannot be had or reaches no index, pip does the work.
define install
	PATH="$$PATH:$(BIN)" uv pip install -q --python $(BIN)/python --compile-bytecode -c constraints.txt -e ".[$(1)]" \
		|| $(BIN)/pip install -q -c constraints.txt -e ".[$(1)]"
endef

# A machine with a GPU wants PyTorch's own CUDA build. Elsewhere that build only costs gigabytes: first a
# wheel that pip finds locally is tried, then PyTorch's CPU index, and at last the package index.
$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once, a minute or two) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed: make clean, then make PYTHON=python3.12")'
	command -v uv >/dev/null || $(BIN)/pip install -q uv || true
	$(BIN)/python -c 'import torch' 2>/dev/null || { command -v nvidia-smi >/dev/null && $(BIN)/pip install -q $(TORCH); } \
		|| $(BIN)/pip install -q --no-index --no-deps --no-compile $(TORCH) 2>/dev/null \
		|| $(BIN)/pip install -q --retries 1 --timeout 15 --index-url https://download.pytorch.org/whl/cpu $(TORCH) 2>/dev/null \
		|| $(BIN)/pip install -q $(TORCH)
	$(call install,cpu)
	@touch $@

$(DEV): $(READY)
	$(call install,cpu$(comma)minilm$(comma)dev)
	@touch $@
