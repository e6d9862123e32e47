# Everything runs in .venv, which is made from bare Python 3.11+ on first use and kept while pyproject.toml stays as it is.
#
#   PYTHON  the interpreter to start from:               make demo PYTHON=python3.12
#   TORCH   what to install as PyTorch, on first use:    make demo TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
#   ARGS    more arguments for the command behind it:    make demo ARGS="--train.updates 300"
#
# A PyTorch that is installed in .venv stays. `make clean` deletes .venv, for another choice of PYTHON or TORCH.

PYTHON ?= python3
TORCH ?=
MINUTES ?= 30
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
LOWER := .venv-lower
LOWER_TESTS := tests/unit tests/parity $(patsubst %,tests/integration/test_%.py,convert export_onnx pipelines trainer)

.PHONY: help demo test test-faults soak check format docs gpu-check wheels lower-bound clean

help:
	@echo "make demo         learn from bundled pictures, three to four minutes on two cores"
	@echo "make test         the whole test suite"
	@echo "make test-faults  kills, full disks, damaged and hostile files, for about twenty minutes"
	@echo "make soak         runs that are killed, stopped and robbed of their disk for MINUTES=30"
	@echo "make check        ruff and mypy"
	@echo "make format       format the code"
	@echo "make docs         build the documentation as a site with search, site/index.html"
	@echo "make gpu-check    check and measure on the GPU of this machine; installs nothing"
	@echo "make wheels       which wheels of the dependencies PyPI has for every Python"
	@echo "make lower-bound  tests with the oldest versions that pyproject.toml allows, in $(LOWER)"
	@echo "make clean        delete the virtual environment"

demo: $(VENV)/.package
	$(BIN)/data2vec2 demo $(ARGS)

test: $(VENV)/.development
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-faults: $(VENV)/.development
	$(BIN)/python -m pytest -n auto --dist loadfile --faults tests/fault $(ARGS)

soak: $(VENV)/.development
	$(BIN)/python -m tests.fault.soak --minutes $(MINUTES) $(ARGS)

check: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

gpu-check:
	PYTHONPATH=src $(PYTHON) benchmarks/gpu_check.py $(ARGS)

wheels: $(VENV)/.package
	$(BIN)/python benchmarks/check_range.py

lower-bound: $(LOWER)/.package
	$(LOWER)/bin/python -m pytest -m "not slow" $(or $(ARGS),$(LOWER_TESTS))

clean:
	rm -rf $(VENV) $(LOWER)

$(LOWER)/.package: pyproject.toml
	test -x $(LOWER)/bin/pip || $(PYTHON) -m venv $(LOWER)
	$(LOWER)/bin/python benchmarks/check_range.py --lower-bounds > $(LOWER)/bounds.txt
	$(LOWER)/bin/pip install --constraint $(LOWER)/bounds.txt $(or $(TORCH),torch torchvision)
	$(LOWER)/bin/pip install --constraint $(LOWER)/bounds.txt --editable ".[vision,tiff,data,lm,onnx,track,trainer]" pytest pandas
	@touch $@

# PyTorch as TORCH says; without TORCH, what is already there is kept, else the registry's plain one is installed.
install_torch = $(if $(TORCH),,$(BIN)/pip show --quiet torch 2>/dev/null ||) $(BIN)/pip install $(or $(TORCH),$(1))

# torchvision where only PyTorch is: for that version, and of the index that a build such as 2.9.0+cpu comes from.
partner = from importlib.metadata import version; torch = version("torch"); build = torch.partition("+")[2]; \
  print("torch==" + torch, *(["--index-url", "https://download.pytorch.org/whl/" + build] if build else []))

# Stamps: the package alone, with what the documentation needs, and with all that its development needs.
$(VENV)/.package: pyproject.toml | $(VENV)/bin/pip
	$(call install_torch,torch)
	$(BIN)/pip install --editable .
	@touch $@

$(VENV)/.docs: $(VENV)/.package
	$(BIN)/pip install --editable ".[docs]"
	@touch $@

$(VENV)/.development: pyproject.toml | $(VENV)/bin/pip
	$(call install_torch,torch torchvision)
	$(BIN)/pip show --quiet torchvision 2>/dev/null || $(BIN)/pip install torchvision $$($(BIN)/python -c '$(partner)')
	$(BIN)/pip install --editable ".[dev,track]"
	@touch $@ $(VENV)/.package

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, and $(PYTHON) is " + sys.version.split()[0] + "; give another: make PYTHON=python3.12")'
	@echo "Preparing a virtual environment in $(VENV); downloading PyTorch can take some minutes."
	$(PYTHON) -m venv $(VENV)
