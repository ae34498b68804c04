# The one door. Needs Python 3.11 or newer and make, nothing else; writes only below this folder
# (and into pip's cache and the folder for temporary files).

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PINS := .ci/constraints.txt
SYNAPSE_PINS := .ci/constraints-synapse.txt
# Relative on purpose: pip splits this variable at spaces, and the checkout's path may have some.
synapse = PIP_CONSTRAINT=$(SYNAPSE_PINS) $(BIN)/python -m homeserver.install synapse
maubot = PIP_CONSTRAINT=$(PINS) $(BIN)/python -m homeserver.install maubot

.PHONY: setup check format quick soak test chaos demo bench-claims bench-sync bench-state mbp clean
.NOTPARALLEL:

setup: $(STAMP)

$(STAMP): pyproject.toml $(PINS)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'cisbot needs Python 3.11 or newer. Where it is elsewhere: make setup PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo "── installing cisbot and its tools into $(VENV)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV) || \
	  { echo 'no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -c $(PINS) -e '.[dev]'
	@touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy --strict cisbot plugins homeserver tests
	$(BIN)/lint-imports --no-logo

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

quick: setup
	$(BIN)/python -m pytest -m "not synapse and not long" -n 2

# Histories of the claims on all cores, for as long as told; always other ones.
soak: setup
	$(BIN)/python -m tests.sim soak --seconds $(or $(SECONDS),60) --first $$(date +%s)

# pytest ends with 5 when it finds no tests, and make then fails. Synapse's tests run in two processes, each with
# a homeserver of its own. The last line is pytest's own.
test: setup
	@echo "── Synapse and maubot, each in a virtual environment of its own"
	@$(synapse)
	@$(maubot)
	$(BIN)/python -m pytest -m "not synapse" -n 2
	$(BIN)/python -m pytest -m synapse -n 2 --dist loadfile

# make chaos [RUNS=200] [LIMITS=default] [SEED=…]: prints its seed first, and its figures as the last line
chaos: setup
	@$(synapse)
	@$(BIN)/python -m tests.chaos --runs $(or $(RUNS),200) --limits $(or $(LIMITS),lifted) $(if $(SEED),--seed $(SEED))

demo: setup
	@$(synapse)
	@$(BIN)/python -m homeserver.demo $(if $(ONCE),--once)

# The last line is one JSON object; some minutes, and best on a machine that does nothing else.
bench-claims: setup
	@$(synapse)
	@$(BIN)/python -m tests.bench.claims

# What one event costs Synapse with 50 bots, by how they ask; about two minutes.
bench-sync: setup
	@$(synapse)
	@$(BIN)/python -m tests.bench.sync_cost $(if $(BOTS),--bots $(BOTS))

# A room with a long past: what its state weighs, and what it costs to join. 10,000 runs take half an hour.
bench-state: setup
	@$(synapse)
	@$(BIN)/python -m tests.bench.state_size $(if $(RUNS),--runs $(RUNS))

mbp: setup
	@$(maubot) >/dev/null
	$(BIN)/python -m homeserver.mbp dist/

clean:
	rm -rf $(VENV) homeserver/.venv homeserver/.maubot-venv demo-data dist build *.egg-info
	rm -rf .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find cisbot plugins homeserver tests -name __pycache__ -type d -prune -exec rm -rf {} +
