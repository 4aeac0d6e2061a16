# make demo: what the shipped base does for parts it never saw, as a page. make test: the tests, in WORKERS processes. Both work offline
# once installed.
# make solar: real solar cells, fetched once with pip; no real defect is trained on (docs/solar.md).
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin

.PHONY: demo solar test lint clean

demo: .venv/installed
	$(BIN)/python scripts/demo.py

solar: .venv/installed
	$(BIN)/python examples/solar.py

test: .venv/installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed; give one with make PYTHON=...") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	rm -rf demo solar .pytest_cache .mypy_cache .ruff_cache
