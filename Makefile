# The front door: make demo, test, test-slow, check, docs, dist, gallery, bench, bench-robust, clean. Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
DATA ?= ../shared/data
OURS := crisp,crisp-tiny,ctkt
MODELS ?= # of `make bench`, with commas between; empty: all

.PHONY: demo test test-slow check docs dist gallery bench bench-robust clean

demo: .venv/crispdepth ## sharpen a made-up scene and write everything there is to look at into demo/
	$(BIN)/crispdepth sample -o demo
	$(BIN)/crispdepth predict --low demo/low.png --unit mm --rgb demo/rgb.png --truth demo/truth.png \
	  --intrinsics demo/intrinsics.json -o demo/sharp.png --picture demo/view.png --points demo/sharp.ply
	$(BIN)/crispdepth predict --low demo/low.png --unit mm --rgb demo/rgb.png -o demo/sharp.exr

test: .venv/installed ## lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto

test-slow: .venv/installed ## the tests that start an S3 server, a Ray cluster or two trainings, or take long; what C++ says as it ends a process is seen
	$(BIN)/python -m pytest -n 0 -m slow --capture=sys

check: .venv/installed ## format, lint and types, no tests
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy

docs: .venv/installed ## the site, into site/: no warning, every link and anchor checked, no network needed
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

dist: .venv/installed ## source and wheel, into dist/; the wheel is built from the source archive
	rm -rf dist
	$(BIN)/python -m build --no-isolation

gallery: .venv/installed ## the pictures of docs/gallery.md
	$(BIN)/python examples/gallery.py -o docs/gallery

bench-robust: .venv/installed ## what holes, noise and other faults cost, into docs/robustness.md
	$(BIN)/crispdepth bench-robust -o docs/robustness.md

bench: .venv/installed ## measure every model (or MODELS alone) on the data sets under DATA into docs/numbers.md; speed and memory of our networks into docs/engines.md
	$(BIN)/crispdepth bench --root $(DATA) -o docs/numbers.md --readme README.md \
	  --figures src/crispdepth/bench/numbers.json --models "$(MODELS)"
	$(BIN)/crispdepth bench-speed --models $(OURS) -o docs/engines.md

.venv/crispdepth: pyproject.toml constraints.txt # what users need
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "crispdepth needs Python 3.11 or newer: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "installing into .venv: some minutes, mostly torch"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

.venv/installed: .venv/crispdepth # and what developers need
	@echo "installing what tests and documentation need: some minutes"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean: ## remove what make made, the environment too
	rm -rf .venv demo site dist
