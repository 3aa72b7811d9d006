# Every target makes and fills .venv when it is missing or older than what it is built from.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
JOBS ?= 2

.PHONY: install demo test lint bench clean

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

# Half an hour on two cores with nothing beside it. `make bench QUICK=--quick`: does it run?
bench: $(STAMP)
	mkdir -p bench
	for name in startup training_input training inference; do $(BIN)/python benchmarks/$$name.py $(QUICK) --json bench/$$name.json || exit 1; done
	$(BIN)/python benchmarks/physics.py --json bench/physics.json
	$(if $(QUICK),,$(BIN)/python benchmarks/denoise_series.py --paper 6 --slices 30 100 300 1000 --precision fp32 bf16 > bench/denoise_series.md)
	$(BIN)/python benchmarks/page.py bench --out $(if $(QUICK),bench/performance.md,docs/performance.md)

clean:
	rm -rf .venv demo bench
