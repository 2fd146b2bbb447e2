# Set-up and tests. `make demo` runs the main job; `make test` passes the tests.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test bench chaos lint docs dist compat compat-lowest compat-newest clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## install, train three teachers and one student on MPE, show who won
	$(BIN)/benchmarl run algorithm=mkt task=multitask/mpe

test: $(STAMP)  ## install and run the tests
	$(BIN)/python -m pytest -n auto --dist loadfile

bench: $(STAMP)  ## measure speed, as ratios; writes benchmarks/results/speed.*
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,smax]'
	$(BIN)/python benchmarks/speed.py

chaos: $(STAMP)  ## kill teachers' and students' trainings 100 times, compare; writes benchmarks/results/chaos.json
	$(BIN)/python benchmarks/chaos.py --kills 100

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: $(STAMP)  ## build the documentation, strictly, into build/site
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet --site-dir build/site

dist: $(STAMP)  ## build sdist and wheel into build/dist, and check them
	rm -rf build/dist
	$(BIN)/python -m build --outdir build/dist
	$(BIN)/python -m twine check --strict build/dist/*

# The fast tests of what depends on other packages' versions, in environments of their own.
COMPAT_TESTS ?= tests --ignore tests/docs --ignore tests/resume --ignore tests/reporting
UV = $(BIN)/uv pip install --quiet $(addprefix --find-links ,$(PIP_FIND_LINKS))
# The floor of torch's range, and the torchvision of that release (which the resolver would raise).
LOWEST_TORCH := torch==2.13.0 torchvision==0.28.0

compat: compat-lowest compat-newest  ## the tests on the lowest and the newest versions in range

compat-lowest compat-newest: compat-%: $(STAMP)
	$(BIN)/python -m pip install --quiet uv
	rm -rf build/compat/$*
	$(PYTHON) -m venv build/compat/$*
	$(UV) --python build/compat/$*/bin/python -e '.[dev]' \
	    $(if $(filter lowest,$*),--resolution lowest-direct $(LOWEST_TORCH),$(NEWEST_TORCH))
	build/compat/$*/bin/python -m pytest $(COMPAT_TESTS)

clean:
	rm -rf $(VENV) build
