# make install | demo | test | test-all | check | chaos | format | archive | lock | audit | clean;
# PYTHON=python3.12 selects another Python.

PYTHON := python3
WORKDIR := runs/demo
BIN := .venv/bin
INSTALLED := .venv/installed-with-$(notdir $(PYTHON))
TOOLS := $(INSTALLED)-and-tools

# A worker that crashed is not replaced: pytest-xdist then waits for ever.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

.PHONY: install demo test test-all check chaos format archive lock audit clean

# Packages of the images of launch/Dockerfile: versions and hashes for their Python.
LOCK = .venv-lock/bin/uv --no-config pip compile --quiet --upgrade --generate-hashes --no-annotate \
	--no-emit-index-url --custom-compile-command 'make lock' --python-version 3.12 \
	--python-platform x86_64-manylinux_2_31 --output-file launch/requirements-$(1).lock

install: $(INSTALLED)

demo: install
	$(BIN)/python -m sofnet_jax.compare --config configs/synthetic.py --workdir $(WORKDIR)

test: check
	$(PYTEST) -m 'not slow'

# The slow tests besides: killed processes, fuzzing, launch files, examples in the documentation.
test-all: test
	$(PYTEST) -m slow

check: $(TOOLS)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# Kills trainings, fills disks, damages checkpoints and more; 15 minutes. SEED=N repeats a run.
chaos: $(TOOLS)
	$(BIN)/python tests/chaos.py

format: $(TOOLS)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Recognises ten thousand clips with two processes, one of which is killed. Takes minutes.
archive: $(TOOLS)
	$(BIN)/python tests/archive.py

lock: .venv-lock
	echo 'setuptools>=77' | $(call LOCK,build) -
	$(call LOCK,cuda) pyproject.toml --extra cuda --extra beam
	$(call LOCK,tpu) pyproject.toml --extra tpu
	$(call LOCK,cpu) pyproject.toml --extra beam

# Reports known vulnerabilities of these packages; also fails if the database is unreachable.
audit: .venv-lock
	.venv-lock/bin/pip-audit --strict --require-hashes --disable-pip \
		$(addprefix --requirement ,$(wildcard launch/requirements-*.lock)) || \
		{ echo 'a known vulnerability, or the database did not answer: see docs/security.md' >&2; exit 1; }

clean:
	rm -rf .cache .venv .venv-lock build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(INSTALLED): pyproject.toml requirements.txt | $(BIN)/$(notdir $(PYTHON))
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# Tests and checks need more packages, above all PyTorch.
$(TOOLS): pyproject.toml requirements.txt | $(BIN)/$(notdir $(PYTHON))
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(INSTALLED) $@

# An environment contains the Python that made it; another Python gets another environment.
$(BIN)/$(notdir $(PYTHON)):
	$(PYTHON) -m venv --clear .venv

.venv-lock:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet 'uv<1' 'pip-audit>=2.10,<3' || { rm -r $@; exit 1; }
