# Every target makes and fills .venv when it is missing or older than what it is built from.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
JOBS ?= 2

.PHONY: install demo test lint clean

$(STAMP): setup.py constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/ct-cncl demo --out demo --overwrite

# One thread a process: many tiny operations on several OpenMP threads wait for each other, tenfold where cores are busy.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --cov-report=term:skip-covered --durations=15

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/typecheck.py

clean:
	rm -rf .venv demo
