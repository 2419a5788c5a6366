# make demo   sets everything up and renders real speech through the running box
# make test   sets everything up and runs the whole suite
# make check  style, types and import rules
#
# make syscalls                    kill and fail every step of a job at every system call, lose power after each (Linux)
# make histories HISTORIES=2000    random histories of the queue; the suite runs 25
# make soak MINUTES=15 SEED=1      the daemon under fire; everything dropped is accounted for (Linux)
# make strace                      install the tracer that this and a part of the suite need (Linux)
# make quality-tools               the environment of the measuring tools that benchmarks/quality.py calls

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MINUTES ?= 15
SEED ?= 1
HISTORIES ?= 2000

.PHONY: demo test check format clean strace syscalls soak histories quality-tools

demo: $(INSTALLED)
	$(BIN)/rvc-batch demo demo

test: check
	$(BIN)/python -m pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

syscalls: $(INSTALLED)
	$(BIN)/python -m tests.syscall_faults
	$(BIN)/python -m tests.syscall_faults --errors
	$(BIN)/python -m tests.syscall_faults --daemon --every 3
	$(BIN)/python -m tests.power_loss

histories: $(INSTALLED)
	HISTORIES=$(HISTORIES) $(BIN)/python -m pytest -q --hypothesis-show-statistics --timeout=0 tests/unit/test_queue_model.py

soak: $(INSTALLED)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --seed $(SEED)

strace:
	command -v strace || apt-get install --yes strace || { apt-get update && apt-get install --yes strace; }

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rvc-batch needs Python 3.11 or newer; run make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# apart from the project's: these tools pin what it does not
quality-tools: build/quality-venv/.installed

build/quality-venv/.installed: benchmarks/quality-requirements.txt
	$(PYTHON) -m venv build/quality-venv
	build/quality-venv/bin/python -m pip install --quiet -r $<
	build/quality-venv/bin/python -m pip install --quiet --no-deps Resemblyzer==0.1.4 torchfcpe==0.0.4
	touch $@

clean:
	rm -rf $(VENV) build demo
