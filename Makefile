# The commands of Atelier. `make app` and `make test` need only python 3.11 to 3.13, git and make.
SHELL := /bin/sh
PYTHON ?= python3
PIP_ARGS ?=
PORT ?= 7860
JOBS ?= 1
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

.PHONY: app test check format pocket browser clean

app: $(VENV)/.runs ## set up on the first call, then serve on http://127.0.0.1:7860
	@exec $(BIN)/python app.py --port $(PORT)

# The tests start a hundred processes, which need not compile everything again. Processes that share the test files must
# find the tests in the same order and leave each other a core.
TEST_ENV := env PYTHONDONTWRITEBYTECODE= $(if $(filter-out 1,$(JOBS)),PYTHONHASHSEED=0 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1)
test: $(VENV)/.tests browser ## set up on the first call, then run every test; JOBS=2 does it on two cores at once
	@exec $(TEST_ENV) $(BIN)/python -m pytest $(if $(filter-out 1,$(JOBS)),-n $(JOBS) --dist loadfile)

check: $(VENV)/.tests ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.tests
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

pocket: $(VENV)/.runs ## retrain every pocket model from nothing; resumes where it was stopped
	$(BIN)/python -m pocket --resume

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  "Atelier needs Python 3.11, 3.12 or 3.13; %s is %d.%d. Try: make app PYTHON=python3.11" % ((sys.executable,) + v))'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runs: requirements.txt constraints.txt | $(BIN)/python
	@echo "Installing what Atelier needs into $(VENV), once (about 2.5 GB with the CPU build of torch)."
	@echo "Some package indexes send the CUDA build of torch, several GB more. For another build say for example:"
	@echo "  make app PIP_ARGS='--extra-index-url ADDRESS-OF-AN-INDEX-WITH-THE-BUILD-YOU-WANT'"
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.tests: requirements-dev.txt $(VENV)/.runs
	$(INSTALL) -r requirements-dev.txt
	@touch $@

# The browser tests drive the system's Chromium. As root on Debian or Ubuntu it is installed here.
browser:
	@if command -v chromium chromium-browser google-chrome >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "Installing Debian's chromium for the browser tests."; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else \
	  echo "The browser tests need Chromium. Install it first, e.g.: sudo apt-get install chromium" >&2; exit 1; \
	fi

clean: ## remove the virtual environment and caches; data under ATELIER_HOME stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis
