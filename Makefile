# Every target creates .venv if it is missing or older than the files that define it.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
JOBS ?= 2

.PHONY: install demo test lint docs bench weights clean

$(STAMP): setup.py constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/ct-cncl demo --out demo --overwrite

# One thread per process: with several OpenMP threads, tiny operations mostly wait for each other, ten times as long on busy cores.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --cov-report=term:skip-covered --durations=15

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/typos

# Strict: a broken link, a missing anchor or a page outside the navigation is an error.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Half an hour on two otherwise idle cores. `make bench QUICK=--quick` only checks that it runs.
bench: $(STAMP)
	mkdir -p bench
	for name in startup training_input training inference; do $(BIN)/python benchmarks/$$name.py $(QUICK) --json bench/$$name.json || exit 1; done
	$(BIN)/python benchmarks/physics.py --json bench/physics.json
	$(if $(QUICK),,$(BIN)/python benchmarks/denoise_series.py --paper 8 --slices 30 100 300 1000 --precision fp32 bf16 > bench/denoise_series.md)
	$(BIN)/python benchmarks/page.py bench --out $(if $(QUICK),bench/performance.md,docs/results/performance.md)

# Trains the shipped weights again: an hour and a half on one core with AMX. CT: the folder of the scans; those without a checksum are left out.
CT ?= ../shared/ct
SCANS := data/scans
CARD := bundles/ct_cncl/docs
STAGE := --data data/weights --with quarter_dose
SETTINGS := phantom_dir=data/phantoms precision=bf16_any train.dataloader.num_workers=1 network_def.level_sigma=1.5
weights: $(STAMP)
	sed -n 's,  shared/ct/,  $(CT)/,p' $(CARD)/data_checksums.txt | sha256sum --check --quiet -
	mkdir -p $(SCANS)/train $(SCANS)/val
	find $(SCANS) -type l -delete
	sed -n 's,.*  shared/ct/,,p' $(CARD)/data_checksums.txt | while read -r scan; do ln -s -r "$(CT)/$$scan" "$(SCANS)/$$scan"; done
	$(BIN)/ct-cncl prepare $(SCANS)/train --validation $(SCANS)/val --dose 0.25 --realizations 4 --seed 11 --patient-from-name '^(nysbu_[^_]+|[^_]+)' --out data/weights
	$(BIN)/ct-cncl prepare --phantoms 12 --slices 4 --realizations 4 --seed 12 --validation-fraction 0.1 --out data/phantoms
	grep -q "$$(find data/weights/ data/phantoms/ -name '*.nii' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-64)" $(CARD)/data_checksums.txt || echo 'The prepared data are not bit for bit those of the shipped weights: another version, processor or numpy rounds differently.'
	$(BIN)/ct-cncl train $(STAGE) --out runs/first $(SETTINGS) max_epochs=10 lr_scheduler.T_max=28 val_interval=10 seed=21
	$(BIN)/ct-cncl train $(STAGE) --out runs/pixel $(SETTINGS) start_from=runs/first/best.pt learning_rate=6e-4 max_epochs=10 val_interval=5 seed=22
	$(BIN)/ct-cncl train $(STAGE) --with texture_centred --out runs/natural $(SETTINGS) start_from=runs/pixel/best.pt learning_rate=1e-4 max_epochs=2 patches.per_epoch=4800 texture.weight=3 seed=23
	$(BIN)/ct-cncl interpolate runs/pixel runs/natural --alpha 0.5 --out runs/mixed

clean:
	rm -rf .venv demo bench site
