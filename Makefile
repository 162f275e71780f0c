# make demo and make test need only Python 3.11+ and make; both create .venv, a second call reuses it.
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
LOWEST := .venv-lowest
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
JOBS ?= 2

.PHONY: demo test test-slow test-lowest docs pages mutants survive survive-long bench bench-quick bench-full lint venv clean

demo: $(VENV)/.installed
	@$(BIN)/crossclass demo

test: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow

# with the oldest versions that pyproject.toml allows, which uv finds; what these warn of is no error here
test-lowest: $(LOWEST)/.ready
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n $(JOBS) -m "not slow" -o filterwarnings=default

$(LOWEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST)/bin/python --resolution lowest-direct -e .
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST)/bin/python --group test
	@touch $@

# docs/_site/index.html; warnings are errors
docs: $(VENV)/.ready
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_site
	@echo $(CURDIR)/docs/_site/index.html

# what is made of the code: the catalogue of `list`, `show` and help, and parts of docs/
pages: $(VENV)/.ready
	$(BIN)/python -m crossclass.cli.write_catalogue
	$(BIN)/python docs/made.py

# does the suite notice a wrong line of the mathematics? minutes
mutants: $(VENV)/.ready
	$(BIN)/python benchmarks/mutants.py $(JOBS)

# speed beside other libraries, which get an environment of their own (their pins contradict each other)
bench-quick: $(BENCH)/.ready
	$(BENCH)/bin/python benchmarks/speed.py quick

bench: $(BENCH)/.ready
	$(BENCH)/bin/python benchmarks/speed.py bench
	$(BENCH)/bin/python benchmarks/measurement.py out=benchmarks/results/measurement.json
	$(BENCH)/bin/python benchmarks/overhead.py out=benchmarks/results/overhead.json

bench-full: bench
	$(BENCH)/bin/python benchmarks/speed.py full
	$(BENCH)/bin/python benchmarks/growth.py out=benchmarks/results/growth.json
	$(BENCH)/bin/python benchmarks/profile_step.py out=benchmarks/results/profile.json

$(BENCH)/.ready: pyproject.toml constraints.txt benchmarks/peers.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[aa]'
	$(BENCH)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r benchmarks/peers.txt
	@touch $@

# kills and bad input: about six minutes on two cores, and longer; writes nothing here (out=FILE.json of the scripts does)
survive: $(VENV)/.ready
	$(BIN)/python benchmarks/fuzz.py 24000
	$(BIN)/python benchmarks/survive.py 60

survive-long: $(VENV)/.ready
	$(BIN)/python benchmarks/fuzz.py 240000 1
	$(BIN)/python benchmarks/survive.py 300 1

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

venv: $(VENV)/.ready

# uv where it is at hand, else pip; both show what they are at
UV := $(shell command -v uv 2>/dev/null)
ifeq ($(UV),)
# the first pip that knows --group
new_venv = $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q --disable-pip-version-check 'pip>=25.1'
install = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
HOW := pip, some minutes: PyTorch alone is up to 3 GB (uv, if it were on the PATH, is faster)
else
new_venv = $(UV) venv --quiet --seed --allow-existing --python $(PYTHON) $(VENV)
install = $(UV) pip install --python $(BIN)/python -c constraints.txt
HOW := uv, a minute or two: PyTorch alone is up to 3 GB
endif

# crossclass and what it needs: enough for the demo
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "crossclass needs Python 3.11 or newer with venv; make PYTHON=... names one"; exit 2; }
	@echo "installing crossclass into $(VENV), once, with $(HOW)"
	@$(new_venv)
	@$(install) -e .
	@touch $@

# and what tests and documentation need
$(VENV)/.ready: $(VENV)/.installed
	@echo "installing what tests and documentation need into $(VENV), once"
	@$(install) --group dev -e .
	@touch $@

clean:
	rm -rf $(VENV) $(BENCH) $(LOWEST) docs/_site .pytest_cache .mypy_cache .ruff_cache .hypothesis
