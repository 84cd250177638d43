# make install | demo | test | check | chaos | format | archive | lock | audit | clean, with
# PYTHON=python3.12 for another Python.

PYTHON := python3
WORKDIR := runs/demo
BIN := .venv/bin
INSTALLED := .venv/installed-with-$(notdir $(PYTHON))
TOOLS := $(INSTALLED)-and-tools

.PHONY: install demo test check chaos format archive lock audit clean

# What images of launch/Dockerfile hold: each package with its version and hashes, for their Python.
LOCK = .venv-lock/bin/uv --no-config pip compile --quiet --upgrade --generate-hashes --no-annotate \
	--no-emit-index-url --custom-compile-command 'make lock' --python-version 3.12 \
	--python-platform x86_64-manylinux_2_31 --output-file launch/requirements-$(1).lock

install: $(INSTALLED)

demo: install
	$(BIN)/python -m sofnet_jax.compare --config configs/synthetic.py --workdir $(WORKDIR)

test: check
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(TOOLS)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# Kills trainings, fills their disk, damages their checkpoints and more; 15 minutes. SEED=N repeats.
chaos: $(TOOLS)
	$(BIN)/python tests/chaos.py

format: $(TOOLS)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Ten thousand clips through two processes, of which one is killed, and the command. Takes minutes.
archive: $(TOOLS)
	$(BIN)/python tests/archive.py

lock: .venv-lock
	echo 'setuptools>=77' | $(call LOCK,build) -
	$(call LOCK,cuda) pyproject.toml --extra cuda --extra beam
	$(call LOCK,tpu) pyproject.toml --extra tpu
	$(call LOCK,cpu) pyproject.toml --extra beam

# Known vulnerabilities of these packages. It fails as well where the database cannot be asked.
audit: .venv-lock
	.venv-lock/bin/pip-audit --strict --require-hashes --disable-pip \
		$(addprefix --requirement ,$(wildcard launch/requirements-*.lock)) || \
		{ echo 'a known vulnerability, or the database did not answer: see docs/security.md' >&2; exit 1; }

clean:
	rm -rf .venv .venv-lock build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(INSTALLED): pyproject.toml requirements.txt | $(BIN)/$(notdir $(PYTHON))
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# What tests and checks need: PyTorch, above all, which the rest does without.
$(TOOLS): pyproject.toml requirements.txt | $(BIN)/$(notdir $(PYTHON))
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(INSTALLED) $@

# An environment holds the name of the Python that made it; another Python makes another one.
$(BIN)/$(notdir $(PYTHON)):
	$(PYTHON) -m venv --clear .venv

.venv-lock:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet 'uv<1' 'pip-audit>=2.10,<3' || { rm -r $@; exit 1; }
