# `make run` and `make test` do all their own set-up; everything else is for those who work on it.
PYTHON ?= python3
PORT ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-all check setup setup-test format bench clean

run: setup
	@$(BIN)/mom chat $(if $(PORT),--port $(PORT))

setup: $(VENV)/.installed
setup-test: $(VENV)/.installed-test

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mom-chat needs Python 3.11 or newer; $$($(PYTHON) --version) was found. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

# The browser tests look for a Chromium themselves; this only tries to have one where we may.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null 2>&1 || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && \
		  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } || true; }
	@command -v chromium chromium-browser google-chrome >/dev/null 2>&1 || \
		echo "********** NO CHROMIUM FOUND: the browser tests are SKIPPED. Install chromium to run them. **********"

# The oldest transformers that pyproject.toml allows, beside the one that is installed.
OLDEST := $(VENV)/transformers-5.17
$(OLDEST)/.installed: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(OLDEST) 'transformers==5.17.0' 'huggingface-hub>=1.5,<2'
	@touch $@

# Quantised weights; not beside the rest, for transformers loads it whenever it is there.
TORCHAO := $(VENV)/torchao
$(TORCHAO)/.installed: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(TORCHAO) 'torchao==0.18.0'
	@touch $@

BITSANDBYTES := $(VENV)/bitsandbytes
$(BITSANDBYTES)/.installed: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(BITSANDBYTES) 'bitsandbytes==0.50.2'
	@touch $@

QUANTISED := $(TORCHAO)/.installed $(BITSANDBYTES)/.installed
WITH_QUANTISED := PYTHONPATH=$(TORCHAO):$(BITSANDBYTES)

# Two processes with one thread each are faster than one with two. A file's tests stay together,
# for they share fixtures.
IN_TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Scripts and styles. Biome comes from npm, which has it for every system; without npm they go unchecked.
BIOME_VERSION := 2.6.8
BIOME := $(VENV)/biome-$(BIOME_VERSION)
HAS_NPM := command -v npm >/dev/null 2>&1
$(BIOME)/.installed: | $(VENV)/bin/python
	@$(HAS_NPM) || exit 0; \
		npm install --prefix $(BIOME) --no-save --no-package-lock --no-audit --no-fund --ignore-scripts \
			--loglevel=error @biomejs/biome@$(BIOME_VERSION) && touch $@
RUN_BIOME := $(HAS_NPM) || \
	{ echo "********** NO NPM FOUND: scripts and styles are NOT CHECKED. Install Node.js to check them. **********"; \
	  exit 0; }; $(BIOME)/node_modules/.bin/biome

test: setup-test check browser $(OLDEST)/.installed $(QUANTISED)
	$(IN_TWO) -m "not slow and not browser"
	$(BIN)/python -m pytest -m "not slow" tests/browser
	PYTHONPATH=$(OLDEST) $(IN_TWO) -m "not slow and not builtin" tests/equivalence
	$(WITH_QUANTISED) $(BIN)/python -m pytest tests/equivalence/test_quantised.py

test-all: test
	PYTHONPATH=$(OLDEST) $(IN_TWO) -m "slow and not builtin" tests/equivalence/test_families.py
	$(IN_TWO) --dist load -m slow tests/equivalence
	$(IN_TWO) -m "slow and not browser" --ignore tests/equivalence
	$(BIN)/python -m pytest -m slow tests/browser

check: setup-test $(BIOME)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(RUN_BIOME) check --error-on-warnings
	$(BIN)/mypy

format: setup-test $(BIOME)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	@$(RUN_BIOME) check --write

bench: setup-test
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
