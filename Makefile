# make install | demo | test | check | format | clean, with PYTHON=python3.12 for another Python.

PYTHON := python3
WORKDIR := runs/demo
BIN := .venv/bin
INSTALLED := .venv/installed-with-$(notdir $(PYTHON))
TOOLS := $(INSTALLED)-and-tools

.PHONY: install demo test check format clean

install: $(INSTALLED)

demo: install
	$(BIN)/python -m sofnet_jax.compare --config configs/synthetic.py --workdir $(WORKDIR)

test: check
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(TOOLS)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(TOOLS)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(INSTALLED): pyproject.toml requirements.txt | $(BIN)/$(notdir $(PYTHON))
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# What tests and checks need: PyTorch, above all, which the rest does without.
$(TOOLS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# An environment holds the name of the Python that made it; another Python makes another one.
$(BIN)/$(notdir $(PYTHON)):
	$(PYTHON) -m venv --clear .venv
