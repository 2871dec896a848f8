# Galaxy Search. `make` alone lists the targets; each sets up what it needs, once.
.DEFAULT_GOAL := help
.PHONY: help search test lint clean

SPACE := spaces/cnn.py
NUM_TRIALS := 20
MAX_EPOCHS := 9
FINAL_SEEDS := 1
SEARCH_ARGS :=
PYTEST_ARGS :=
PIP_ARGS :=
PYTHON :=

# Not to be set from outside: `clean` removes it.
override VENV := .venv
# `-m` everywhere: the scripts in .venv/bin name the folder they were installed in, and a checkout may move.
IN_VENV := $(VENV)/bin/python -m
PIP_INSTALL = $(IN_VENV) pip install --disable-pip-version-check --no-input $(PIP_ARGS)

help:
	@echo 'make search   set up, simulate a small sky, search $(SPACE), print the path of the report'
	@echo 'make test     set up, check style and types, run the tests'
	@echo 'make lint     check style and types only'
	@echo 'make clean    remove $(VENV), build products and caches; never runs/ or shards/'
	@echo
	@echo 'Variables, given as NAME=value (now):'
	@echo '  SPACE        the space file to search ($(SPACE))'
	@echo '  NUM_TRIALS   trials of the search ($(NUM_TRIALS))'
	@echo '  MAX_EPOCHS   epochs of the longest trial ($(MAX_EPOCHS))'
	@echo '  FINAL_SEEDS  trainings of the best configuration at the end ($(FINAL_SEEDS))'
	@echo '  SEARCH_ARGS  more options for the search, such as "--data shards/my-survey" ($(SEARCH_ARGS))'
	@echo '  PYTEST_ARGS  more options for pytest, such as "-k manifest" ($(PYTEST_ARGS))'
	@echo '  PIP_ARGS     more options for pip, such as "--extra-index-url URL" for a torch without CUDA ($(PIP_ARGS))'
	@echo '  PYTHON       the Python, 3.11 or newer, that $(VENV) is made with (the first found)'

search: $(VENV)/installed-run
	$(IN_VENV) search.run --space $(SPACE) --num-trials $(NUM_TRIALS) --max-epochs $(MAX_EPOCHS) \
	    --final-seeds $(FINAL_SEEDS) $(SEARCH_ARGS)

# Where it is set, each of some hundred processes would compile the project anew.
test: lint
	PYTHONDONTWRITEBYTECODE= $(IN_VENV) pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(VENV)/installed-dev
	$(IN_VENV) ruff check
	$(IN_VENV) ruff format --check
	$(IN_VENV) mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./runs -prune -o -path ./shards -prune -o -path ./.git -prune -o \
	    -type d -name __pycache__ -exec rm -rf {} +

# Whoever has the development packages has those of a run.
$(VENV)/installed-dev: pyproject.toml $(VENV)/bin/activate
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $(VENV)/installed-run $@

$(VENV)/installed-run: pyproject.toml $(VENV)/bin/activate
	$(PIP_INSTALL) --editable .
	@touch $@

# `activate` is the last file that venv writes, so it stands for a complete environment. A candidate is run,
# not only found: it may be too old, lack venv (as Debian ships it), or be a launcher without its Python.
$(VENV)/bin/activate:
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "Making $(VENV) with $$($$python --version); then come several GB of packages"; \
	        exec $$python -m venv --clear $(VENV); \
	    fi; \
	done; \
	echo 'error: no Python 3.11 or newer with venv was found among: $(or $(PYTHON),python3.13 python3.12 python3.11 python3):' \
	    'install one (on Debian: python3 and python3-venv), or name one by PYTHON=...' >&2; \
	exit 2
