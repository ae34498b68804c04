# The one door. Needs Python 3.11 or newer and make; writes only below this folder (and pip's own cache).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup check format quick test demo mbp clean

setup: $(STAMP)

$(STAMP): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cisbot needs Python 3.11 or newer: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@echo "── installing cisbot and its tools into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c .ci/constraints.txt -e '.[dev]'
	@touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy cisbot plugins homeserver tests
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

quick: setup
	$(BIN)/python -m pytest -m "not synapse" -n 2

test: setup
	$(BIN)/python -m homeserver.install
	$(BIN)/python -m pytest -m "not synapse" -n 2
	$(BIN)/python -m pytest -m synapse

demo: setup
	@$(BIN)/python -m homeserver.install
	@$(BIN)/python -m homeserver.demo $(if $(ONCE),--once)

mbp: setup
	$(BIN)/python -m homeserver.mbp dist/

clean:
	rm -rf $(VENV) homeserver/.venv demo-data dist build *.egg-info
