# Set-up happens on first use: every target below works on a fresh machine with Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RUN_INSTALLED := $(VENV)/.run-installed
TEST_INSTALLED := $(VENV)/.test-installed
DEMO_RUN := runs/demo
STUDY_RUN := runs/study
STUDY := docs/study

.PHONY: demo study scoreboard test test-all app bench lint format clean

demo: $(RUN_INSTALLED)
	$(BIN)/sightcheck audit --out $(DEMO_RUN) --overwrite --causal 100
	$(BIN)/sightcheck shortcuts --quick --out $(DEMO_RUN)-rewards

# What docs/README.md shows: the full audit and the untrained control, about five minutes on two cores.
study: $(RUN_INSTALLED)
	$(BIN)/sightcheck audit --out $(STUDY_RUN) --overwrite --causal 400 --position-study
	$(BIN)/sightcheck untrained --out $(STUDY)/untrained --overwrite
	rm -rf $(STUDY)/audit && mkdir -p $(STUDY)/audit
	cp $(STUDY_RUN)/manifest.json $(STUDY_RUN)/metrics.json $(STUDY)/audit/
	for figure in $(STUDY_RUN)/figures/*.png; do \
	  ! grep -q "study/audit/$$(basename $$figure)" docs/README.md || cp $$figure $(STUDY)/audit/; done

# The instruments' scoreboard, about six minutes on two cores.
scoreboard: $(RUN_INSTALLED)
	rm -rf $(STUDY)/scoreboard && mkdir -p $(STUDY)/scoreboard
	$(BIN)/sightcheck scoreboard --out runs/scoreboard --overwrite --samples 1200 --dev 600
	cp runs/scoreboard/manifest.json runs/scoreboard/metrics.json runs/scoreboard/figures/*.png $(STUDY)/scoreboard/

app: $(RUN_INSTALLED)
	$(BIN)/python app.py

# Two workers on two cores: a worker that takes both with threads of its own waits for the other.
test test-all: export OMP_NUM_THREADS ?= 1

test: $(TEST_INSTALLED)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-all: $(TEST_INSTALLED) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The benches with their defaults, on quiet cores; the other tools come with the test extra. README, docs and figure
# are filled from it.
bench: $(TEST_INSTALLED)
	$(BIN)/sightcheck bench capture --out docs/bench/capture.json --overwrite || [ $$? -eq 1 ]
	$(BIN)/python -m studies.capture.page
	$(BIN)/sightcheck bench reward --out docs/bench/reward.json --overwrite || [ $$? -eq 1 ]
	$(BIN)/python -m studies.reward_bench.page
	$(BIN)/sightcheck bench inside --out docs/bench/inside.json --overwrite || [ $$? -eq 1 ]
	$(BIN)/python -m studies.inside_bench.page

lint: $(TEST_INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(TEST_INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Runs are results: they stay.
clean:
	rm -rf .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(RUN_INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[explorer]"
	touch $@

$(TEST_INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@ $(RUN_INSTALLED)
