# Every target installs what it needs into .venv/ and .lab/ (both ignored by git).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Tests wait more than they work: two at a time, each with a lab of its own. WORKERS=0 runs them in one process.
WORKERS ?= 2

# Modules are compiled once, not by each of the many processes that a test run and the demo start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup check alerts test test-matrix unit integration faults demo drill bench bench-peers bench-stages bench-idle bench-bridge bench-snapshot bench-pgbench bench-flat lock clean

setup: $(STAMP)

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The alert rules and their cases, by Prometheus itself; promtool is in Debian's package prometheus.
PROMTOOL ?= promtool
alerts:
	$(PROMTOOL) check config deploy/prometheus/prometheus.yml
	$(PROMTOOL) test rules deploy/prometheus/alerts_test.yml

test: setup
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

# Each version of PostgreSQL as a source, with the same and each newer one as a replica.
test-matrix: setup
	EMBASSY_TEST_MATRIX=all $(BIN)/python -m pytest tests/matrix

unit: setup
	$(BIN)/python -m pytest tests/unit tests/property

integration: setup
	$(BIN)/python -m pytest tests/integration

faults: setup
	$(BIN)/python -m pytest tests/faults

demo: setup
	$(BIN)/embassy demo

# The worst day, rehearsed: all of home killed under load, every registry promoted by two persons, home's return.
drill: setup
	$(BIN)/embassy demo --promote --seconds 30

# Beside native logical replication, in turn; BENCH_JSON names a file for the results, BENCH adds options (--help).
bench: setup
	$(BIN)/python -m benchmarks $(BENCH)

# And beside Debezium, MirrorMaker 2 and Debezium's sink, from Maven; an hour or less.
bench-peers: setup
	$(BIN)/python -m benchmarks --peers $(BENCH)

# Where a change's CPU time goes, stage by stage, without servers.
bench-stages: setup
	$(BIN)/python -m benchmarks.stages

# A hundred idle streams in one process of each role, and ten busy ones beside each other.
bench-idle: setup
	$(BIN)/python -m benchmarks.idle $(BENCH)

# The bridge beside MirrorMaker 2, on the same records, with 0, 50 and 200 ms of round trip between the sites.
bench-bridge: setup
	$(BIN)/python -m benchmarks.bridging $(BENCH)

# A database that is there already, copied by us, by pg_dump | psql and by native copy_data; then killed on the way.
bench-snapshot: setup
	$(BIN)/python -m benchmarks.snapshot $(BENCH)

# pgbench's built-in scripts, with DDL, a resync of the largest table and kill -9 of every role in the same run: equal?
bench-pgbench: setup
	$(BIN)/python -m benchmarks.pgbench $(BENCH)

# Rate and memory on the way through one large backlog; 10,000,000 changes take a while, BENCH="--changes 1000000" less.
bench-flat: setup
	$(BIN)/python -m benchmarks.flat $(BENCH)

lock: setup
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements/runtime.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --extra console -o requirements/console.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --extra console --group dev -o requirements/dev.txt

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .import_linter_cache
