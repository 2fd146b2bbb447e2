# Set-up and tests. `make demo` runs the main job; `make test` passes the tests.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test bench chaos lint docs clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## install, train three teachers and one student on MPE, show who won
	$(BIN)/benchmarl run algorithm=mkt task=multitask/mpe

test: $(STAMP)  ## install and run the tests
	$(BIN)/python -m pytest

bench: $(STAMP)  ## measure speed, as ratios; writes benchmarks/results/speed.*
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,smax]'
	$(BIN)/python benchmarks/speed.py

chaos: $(STAMP)  ## kill teachers' and students' trainings 100 times, compare; writes benchmarks/results/chaos.json
	$(BIN)/python benchmarks/chaos.py --kills 100

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

docs: $(STAMP)  ## build the documentation, strictly, into build/site
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet --site-dir build/site

clean:
	rm -rf $(VENV)
