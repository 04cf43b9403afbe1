# What a newcomer runs: make demo. `make help` lists the rest.
#
# PYTHON=python3.12     which Python to use (default: the newest of 3.13, 3.12, 3.11 that is found)
# TORCH_INDEX=https://… where pip finds torch, when not on its usual index (README, "Without a GPU")
# TESTS=tests/feedback  what to test (default: everything); PYTEST_ARGS=-x what else pytest is told

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo serve test lint format bench clean

RIGHT_VERSION := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c '$(RIGHT_VERSION)' 2>/dev/null && echo $$name && break; done)
endif
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.nestbox-setup
REQUIREMENTS := requirements.txt $(wildcard requirements/*.txt)
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
TESTS ?= tests

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make .venv and install everything in it, test tools too

$(STAMP): $(REQUIREMENTS)
	@$(or $(PYTHON),false) -c '$(RIGHT_VERSION)' 2>/dev/null || { \
		echo "Nestbox needs Python 3.11, 3.12 or 3.13; found $$($(or $(PYTHON),python3) --version 2>&1 | tail -n 1)." >&2; \
		echo "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@[ ! -x $(BIN)/python ] || $(BIN)/python -c '$(RIGHT_VERSION)' 2>/dev/null || { \
		echo "$(VENV) holds another Python; remove it (rm -r $(VENV)) and run make setup again." >&2; exit 1; }
	@[ -x $(BIN)/python ] || { echo "Making $(VENV) with $(PYTHON) ..."; $(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make virtual environments (on Debian: apt-get install python3-venv)." >&2; rm -rf $(VENV); exit 1; }; }
	@echo "Installing torch (several hundred MB; some minutes the first time) ..."
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	@echo "Installing everything else ..."
	@$(PIP) -r requirements.txt -r requirements/dev.txt
	@touch $(STAMP)
	@echo "Set up in $(VENV)."

demo: setup ## set up, fill an empty data folder with the starter world, and serve until Ctrl-C
	@exec $(BIN)/python manage.py demo

serve: setup ## set up and serve what the data folder holds until Ctrl-C
	@exec $(BIN)/python manage.py serve

test: setup ## run the tests; offline, and says what could not run here and why
	@OMP_NUM_THREADS=1 exec $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadscope $(PYTEST_ARGS) $(TESTS)

lint: setup ## check form, names, types, migrations and production settings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python manage.py makemigrations --check --dry-run
	DJANGO_SETTINGS_MODULE=config.settings.production DJANGO_ALLOWED_HOSTS=nestbox.example.org \
		DJANGO_SECRET_KEY="$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(64))')" \
		$(BIN)/python manage.py check --deploy --fail-level WARNING

format: setup ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## measure beside what else one would use, and write docs/benchmarks.md; BENCH=ppo: that alone, not written
	@HF_HUB_OFFLINE=1 exec $(BIN)/python -m tests.benchmarks $(BENCH)

clean: ## remove what tools left behind (the data folder and .venv stay)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.* htmlcov staticfiles
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
