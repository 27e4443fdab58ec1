# One command for each thing. `make run` and `make test` set up what they need.
.PHONY: run demo test test-long check lint types format docs bench install uninstall clean

VENV := .venv
PYTHON := $(VENV)/bin/python
# Changes when the virtual environment has to be filled again.
STAMP := $(VENV)/.filled

run: $(STAMP)
	$(PYTHON) -m telemetryd run $(ARGS)

test: $(STAMP) check
	$(PYTHON) -m pytest -m "not long" $(ARGS)

test-long: $(STAMP)
	$(PYTHON) -m pytest $(ARGS)

check: lint types

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP)
	$(VENV)/bin/mypy

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# What is generated from the code: the references and the dashboards.
docs: $(STAMP)
	$(PYTHON) -m telemetryd metrics --format markdown > docs/metrics.md
	$(PYTHON) -c "from telemetryd.config_reference import as_markdown; print(as_markdown(), end='')" > docs/configuration.md
	$(PYTHON) dashboards/build.py

bench: $(STAMP)
	$(PYTHON) bench/run.py $(ARGS)

demo: $(STAMP)
	$(PYTHON) tests/fakes/nvml/demo.py $(ARGS)

install:
	sh systemd/install.sh

uninstall:
	sh systemd/uninstall.sh

$(STAMP): pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade "pip>=25.1"
	$(PYTHON) -m pip install --quiet --editable . --group dev
	touch $@

clean:
	rm -rf $(VENV) build dist bench/out .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
