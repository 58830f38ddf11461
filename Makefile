# `make help` lists the targets. Each environment is a folder that remembers in stamp files (.stamps/) what is installed,
# so that a second run installs nothing.

PYTHON ?= python3
TORCH ?= 2.13.0
VENV ?= .venv
PYTEST_ARGS ?=
# Test processes (0: none besides pytest's own, for a debugger). They must agree on how sets of strings are ordered.
JOBS ?= 2
PARALLEL := env -u UNIFIED_GUARDS -u UNIFIED_GUARDS_VERIFY PYTHONHASHSEED=0 OMP_NUM_THREADS=1
IN_PARALLEL = -n $(JOBS) --dist worksteal

ASAN_VENV := .venv-asan
PY := $(VENV)/bin/python
STAMPS := $(VENV)/.stamps
PIP := $(PY) -m pip --disable-pip-version-check
# build/main for .venv, build/3.12-2.15.0 for .venv-3.12-2.15.0.
BUILD := build/$(if $(filter .venv,$(VENV)),main,$(patsubst .venv-%,%,$(notdir $(VENV))))
NATIVE := $(wildcard csrc/*/*.cpp csrc/*/*.h) CMakeLists.txt pyproject.toml unified_guards/_build.py.in
say = @printf '\n==> %s\n' "$(1)"
# pip hides what a build prints. Shown of it is what ninja says of its progress, and all of it where the build fails.
shown = bash -o pipefail -c '$(1) 2>&1 | tee $(STAMPS)/build.log | \
  sed -nu "s/\.o$$//; s/^ *\(\[[0-9]*\/[0-9]*\]\) \(Building\|Linking\) .*[ /]\([a-z_]*\/[a-z_]*\.cpp\|[^ /]*\)$$/  \1 \3/p" \
  || { cat $(STAMPS)/build.log; exit 1; }'

# What is run again with every verdict compared with torch's (`make test-verify` does it for all tests).
VERIFIED_TESTS := tests/test_behaviour_unified.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-verify test-asan test-matrix fuzz gpu-check bench bench-witness environment build wheel test-wheel \
  wheels lint format docs docs-serve clean distclean
.DELETE_ON_ERROR:

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | \
	  while IFS='|' read -r name what; do printf '  make %-13s %s\n' "$$name" "$$what"; done
	@echo
	@echo "  Variables: PYTHON=$(PYTHON)  TORCH=$(TORCH)  VENV=$(VENV)  JOBS=$(JOBS)  PYTEST_ARGS=  FUZZ_SECONDS=  FUZZ_SEED=  CXX="

# ---- the two commands ------------------------------------------------------------------------------------------------

demo: $(STAMPS)/built $(STAMPS)/demo ## set up (two to three minutes once), then steps with torch's guards and with unified ones (a minute)
	$(call say,running the demo (about a minute))
	@$(PY) -m benchmarks.demo

test: $(STAMPS)/built $(STAMPS)/test ## set up, then the tests (half an hour on two cores; make test PYTEST_ARGS="-k NAME" runs a part)
	$(call say,running the tests (about half an hour on two cores; PYTEST_ARGS='-k NAME' runs a part))
	@$(PARALLEL) $(PY) -m pytest $(IN_PARALLEL) $(PYTEST_ARGS)
	$(call say,the behaviour suite again: UNIFIED_GUARDS_VERIFY=1 compares every verdict with torch's)
	@$(PARALLEL) UNIFIED_GUARDS_VERIFY=1 $(PY) -m pytest $(IN_PARALLEL) $(PYTEST_ARGS) $(VERIFIED_TESTS)

# ---- more tests ------------------------------------------------------------------------------------------------------

test-verify: $(STAMPS)/built $(STAMPS)/test ## all tests with UNIFIED_GUARDS_VERIFY=1
	@$(PARALLEL) UNIFIED_GUARDS_VERIFY=1 $(PY) -m pytest $(IN_PARALLEL) $(PYTEST_ARGS)

# A Python that is missing comes from Debian; what is done is not done again: tests/matrix.py.
test-matrix: ## the tests on all pairs of Python and torch; the table goes to docs/matrix.md (MATRIX_ARGS=--help)
	@$(PYTHON) -m tests.matrix --jobs $(JOBS) $(MATRIX_ARGS)

FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 1

fuzz: $(STAMPS)/built $(STAMPS)/test ## mutate guarded objects at random for FUZZ_SECONDS, from FUZZ_SEED on
	@TORCH_DEVICE_BACKEND_AUTOLOAD=0 $(PY) -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

# The extension alone is instrumented: python, torch and the packages are those of $(VENV), seen through a .pth file.
ASAN_PRELOAD = $(shell for library in libasan.so libubsan.so libstdc++.so.6; do \
  $(or $(CXX),g++) -print-file-name=$$library; done | tr '\n' ':')
# Those that ask the most of the native code.
ASAN_FIRST := tests/kinds tests/test_checker.py tests/test_siblings.py tests/shape_expressions \
  tests/test_differential.py tests/test_user_code.py tests/witness/test_objects.py tests/test_breaking.py \
  tests/test_breaking_objects.py tests/test_tensor_kinds.py tests/hostile tests/witness/test_moving_dicts.py \
  tests/calls/test_inputs.py tests/calls/test_reentry.py tests/calls/test_left_behind.py
ASAN_TESTS ?= $(ASAN_FIRST) tests/test_behaviour_unified.py tests/test_survives.py tests/test_fuzz.py tests/witness tests/calls
ASAN_FUZZ_STEPS ?= 20000
# Memory is held back by the sanitizer itself, so tests of how much is held, or given out again, say nothing here; gcc does
# not run under it, and greenlet copies stacks in which it sees poison. Hostile programs run once, not in all variants.
ASAN_ARGS ?= -k "not memory and not leaks and not gcc and not same_address and not greenlets and \
  not (test_program and (verify or no_witness))"

test-asan: $(ASAN_VENV)/.stamps/built ## tests with the address and undefined-behaviour sanitizers
	$(call say,running $(ASAN_TESTS) with sanitizers)
	@$(PARALLEL) LD_PRELOAD="$(ASAN_PRELOAD)" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	  PYTHONMALLOC=malloc FUZZ_STEPS=$(ASAN_FUZZ_STEPS) $(ASAN_VENV)/bin/python -m pytest $(IN_PARALLEL) $(ASAN_ARGS) $(PYTEST_ARGS) $(ASAN_TESTS)

$(ASAN_VENV)/.stamps/built: $(STAMPS)/torch-$(TORCH) $(STAMPS)/tools $(STAMPS)/test $(NATIVE)
	$(call say,compiling the extension with sanitizers (two to four minutes the first time))
	@$(PY) -m venv $(ASAN_VENV)
	@$(PY) -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
	  "$$($(ASAN_VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/packages_of_venv.pth"
	@TORCH_DEVICE_BACKEND_AUTOLOAD=0 $(ASAN_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
	  --editable . --no-build-isolation --no-deps --config-settings=build-dir=build/asan \
	  --config-settings=cmake.define.UNIFIED_GUARDS_SANITIZE=ON
	@mkdir -p $(@D) && touch $@

# Offline, in the environment of the python3 that is there: nothing is downloaded and nothing outside build/ is written.
gpu-check: ## build with this python3's own torch, offline, and run the CUDA tests
	@$(PYTHON) -c "import torch, sys; torch.cuda.is_available() or sys.exit('make gpu-check needs a CUDA device, and torch ' + torch.__version__ + ' sees none')"
	@$(PYTHON) -c "import pytest" 2>/dev/null || \
	  { echo "make gpu-check needs pytest in the environment of $(PYTHON): $(PYTHON) -m pip install pytest"; exit 1; }
	$(call say,compiling the extension)
	@rm -rf build/gpu-site
	@$(PYTHON) -m pip --disable-pip-version-check install --quiet . --no-build-isolation --no-deps --no-index \
	  --target build/gpu-site --config-settings=build-dir=build/gpu
	@cd build/gpu-site && PYTHONPATH="$$PWD" $(PYTHON) -c "import os, sys, unified_guards as u; found = os.path.dirname( \
	  os.path.dirname(u.__file__)); found == os.getcwd() or sys.exit('another unified_guards is installed in ' + found + \
	  ' and would be tested instead: $(PYTHON) -m pip uninstall unified_guards')"
	$(call say,running the CUDA tests)
	@cd build/gpu-site && PYTHONPATH="$$PWD" $(PYTHON) -m pytest -c ../../pyproject.toml --rootdir ../.. \
	  $(PYTEST_ARGS) -m cuda ../../tests/test_cuda.py

# ---- work on it ------------------------------------------------------------------------------------------------------

environment: $(STAMPS)/built $(STAMPS)/test ## set up what the tests need, and run none

build: ## compile the extension after a change in csrc/ or of the torch in $(VENV)
	@rm -f $(STAMPS)/built
	@$(MAKE) --no-print-directory $(STAMPS)/built

# Made from the sdist, so that both are tried; tested in an environment that holds torch and the wheel, nothing else at
# first. Docker and a matrix of them: cibuildwheel, see wheels/README.md.
WHEEL := build/wheel
DIST := dist
WHEEL_PY := $(WHEEL)/venv/bin/python
WHEEL_TESTS ?= tests/test_public_face.py tests/test_survives.py
FOR_TORCH = $(shell echo $(TORCH) | cut -d. -f1,2)

wheel: $(STAMPS)/torch-$(TORCH) $(STAMPS)/tools $(STAMPS)/wheel ## sdist and wheel for TORCH, to dist/; tested where only torch and the wheel are
	$(call say,making the sdist and from it the wheel (one to three minutes))
	@rm -rf $(WHEEL) $(DIST) && mkdir -p $(WHEEL)/sdist $(WHEEL)/tests
	@$(PY) -m build --no-isolation --sdist --outdir $(DIST) .
	@tar -xf $(DIST)/*.tar.gz -C $(WHEEL)/sdist --strip-components=1
	@cd $(WHEEL)/sdist && UNIFIED_GUARDS_FOR_TORCH=$(FOR_TORCH) PATH="$(abspath $(VENV))/bin:$$PATH" \
	  $(abspath $(PY)) -m build --no-isolation --wheel --outdir ../unrepaired .
	@PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) -m auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' \
	  --wheel-dir $(DIST) $(WHEEL)/unrepaired/*.whl
	@PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) wheels/check.py $(DIST)/*.whl
	$(call say,installing torch $(TORCH) and the wheel in $(WHEEL)/venv)
	@$(PY) -m venv $(WHEEL)/venv
	@$(WHEEL_PY) -m pip --disable-pip-version-check install --quiet --no-compile torch==$(TORCH)
	@$(WHEEL_PY) -m pip --disable-pip-version-check install --quiet --no-index $(DIST)/*.whl
	@$(WHEEL_PY) -I wheels/smoke.py
	@$(if $(strip $(WHEEL_TESTS)),$(MAKE) --no-print-directory test-wheel)

# Only on what `make wheel` has made.
test-wheel:
	$(call say,running $(WHEEL_TESTS) against the wheel)
	@$(WHEEL_PY) -m pip --disable-pip-version-check install --quiet 'pytest>=8' 'pytest-xdist>=3' numpy
	@cp -r tests pyproject.toml $(WHEEL)/tests
	@cd $(WHEEL)/tests && $(PARALLEL) ../venv/bin/python \
	  -m pytest $(IN_PARALLEL) $(PYTEST_ARGS) $(WHEEL_TESTS)

wheels: ## wheels of TORCH for Python 3.10 to 3.14, as far as they are to be had, to dist/
	@$(PYTHON) -m wheels.every_python --torch $(TORCH) $(WHEELS_ARGS)

bench: $(STAMPS)/built $(STAMPS)/demo ## all workloads, torch and unified side by side, to benchmarks/results/
	@mkdir -p benchmarks/results
	@$(PY) -m benchmarks.workloads --json benchmarks/results/latest.json

bench-witness: $(STAMPS)/built $(STAMPS)/bench ## what the witness saves: tables and plots, to benchmarks/results/ (half an hour)
	@$(PY) -m benchmarks.witness all

lint: $(STAMPS)/lint ## ruff, clang-format, mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror csrc/*/*.cpp csrc/*/*.h
	$(VENV)/bin/mypy

format: $(STAMPS)/lint ## rewrite the files as the linters want them
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i csrc/*/*.cpp csrc/*/*.h

# Neither needs torch: docstrings are read from the source.
MKDOCS = NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs

docs: $(STAMPS)/docs ## the site, to build/site; every warning is an error
	@$(MKDOCS) build --strict --quiet

docs-serve: $(STAMPS)/docs ## the site at http://localhost:8000, built again when a page changes
	@$(MKDOCS) serve --watch README.md --watch CONTRIBUTING.md --watch unified_guards

clean: ## remove what was built
	rm -rf build dist compile_commands.json .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f .venv*/.stamps/built
	find unified_guards benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the environments too
	rm -rf .venv .venv-*

# ---- environments ----------------------------------------------------------------------------------------------------

$(STAMPS)/python:
	$(call say,making $(VENV))
	@command -v $(PYTHON) >/dev/null || { echo "unified_guards needs Python 3.10 or newer and found no $(PYTHON)." \
	  "Name one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "unified_guards needs Python 3.10 or newer" \
	  "and found $$($(PYTHON) --version 2>&1). Name another one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade pip
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch-$(TORCH): | $(STAMPS)/python
	$(call say,installing torch $(TORCH))
	@$(PIP) install torch==$(TORCH)
	@rm -f $(STAMPS)/torch-* $(STAMPS)/built
	@touch $@

# What pyproject.toml lists under [dependency-groups].
$(STAMPS)/tools $(STAMPS)/demo $(STAMPS)/bench $(STAMPS)/test $(STAMPS)/wheel $(STAMPS)/lint $(STAMPS)/docs: pyproject.toml | $(STAMPS)/python
	$(call say,installing what [dependency-groups] $(@F) of pyproject.toml lists)
	@$(PIP) install --quiet --group $(@F)
	@touch $@

# Editable: Python files are used where they lie, the extension from the environment.
$(STAMPS)/built: $(STAMPS)/torch-$(TORCH) $(STAMPS)/tools $(NATIVE)
	$(call say,compiling the extension (under two minutes on two idle cores the first time))
	@$(call shown,$(PIP) install --verbose --editable . --no-build-isolation --no-deps --config-settings=build-dir=$(BUILD))
	@if [ $(BUILD) = build/main ]; then ln -sfn $(BUILD)/compile_commands.json compile_commands.json; fi
	@touch $@
