# Everything runs in .venv, which is made and filled on first use; a second call installs nothing.
#
#   make test PYTHON=python3.12
#       another Python than python3; 3.10 or newer
#   make test CPU_TORCH=1
#       the CPU-only PyTorch from its makers' own index: about 2 GB instead of 6 GB. Counts for the first call.
#   make test-mmseg MMSEG=openmmlab
#       OpenMMLab's own MMSegmentation instead of the maintained onedl packages
#   make test TORCH_INDEX=URL
#       torch and torchvision from another index, such as a mirror of that one
#
# pip's own environment variables and configuration apply as usual.

PYTHON ?= python3
TORCH_INDEX ?=
ifdef CPU_TORCH
TORCH_INDEX := https://download.pytorch.org/whl/cpu
endif

MMSEG ?= onedl
# The two families of MMSegmentation overwrite each other and other people's, so each has an environment of its own.
VENV := $(if $(filter test-mmseg,$(MAKECMDGOALS)),.venv-mmseg-$(MMSEG),.venv)
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --quiet --disable-pip-version-check

SIZE := $(if $(CPU_TORCH),2 GB,6 GB)

.DEFAULT_GOAL := help
.PHONY: help demo test test-mmseg soak lint docs clean
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-runtime ## compress a network without data in two ways, score, draw (a quarter of an hour)
	@$(RUN) -m dfad_seg demo --work-dir runs/demo

test: $(VENV)/.installed-test ## run the test suite (about 5 minutes on two cores; with CI=true the slow tests, too)
	@OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(if $(CI),,-m "not slow")

soak: $(VENV)/.installed-test ## run the long tests: kills, a full disk, fuzzing, 20,000 steps (about an hour)
	@OMP_NUM_THREADS=1 $(RUN) -m pytest --soak -s tests/reliability

test-mmseg: $(VENV)/.installed-mmseg ## run the tests against the real MMSegmentation, in .venv-mmseg-onedl
	@OMP_NUM_THREADS=1 $(if $(filter openmmlab,$(MMSEG)),TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1) $(RUN) -m pytest \
	  tests/integrations tests/evaluation/test_mmseg_parity.py tests/segmentors/test_mmseg_files.py

lint: $(VENV)/.installed-lint ## check style and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m codespell_lib
	@$(RUN) -m mypy

docs: $(VENV)/.installed-docs ## build the documentation's site in site/, warnings as errors
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "open site/index.html"

clean: ## remove caches, build leftovers and runs/demo; other runs and .venv stay
	@rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis runs/demo
	@find dfad_seg tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written by the last command of its rule, so an interrupted installation leaves none and is repeated.

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "Python 3.10 or newer is needed, and $(PYTHON) is: $$($(PYTHON) --version 2>&1 | tail -n 1)." >&2; \
	  echo "Name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Two packages, opencv-python and opencv-python-headless, own the same folder cv2, and the one installed last wins.
# Where the system libraries that the former wants (libGL) are missing, the latter's files are put there instead.
$(VENV)/.installed-runtime: setup.cfg constraints.txt $(VENV)/.created
	@echo "installing dfad_seg and what it needs into $(VENV) (about $(SIZE), some minutes, once)"
ifneq ($(TORCH_INDEX),)
	@$(PIP) install --index-url $(TORCH_INDEX) --no-deps -c constraints.txt torch torchvision
endif
	@$(PIP) install -c constraints.txt -e .
	@$(RUN) -c 'import cv2' 2>/dev/null || { \
	  $(PIP) install -c constraints.txt --force-reinstall --no-deps opencv-python-headless && \
	  $(RUN) -c 'import cv2'; }
	@touch $@

$(VENV)/.installed-test $(VENV)/.installed-lint $(VENV)/.installed-docs: $(VENV)/.installed-%: $(VENV)/.installed-runtime
	@echo "installing what make $* needs"
	@$(PIP) install -c constraints.txt -e '.[$*]'
	@touch $@

# --no-deps: what MMSegmentation asks for beyond this is not used here, and would move the pinned versions.
$(VENV)/.installed-mmseg: requirements/mmseg-$(MMSEG).txt $(VENV)/.installed-test
	@echo "installing MMSegmentation ($(MMSEG))"
	@$(PIP) install --no-deps -r requirements/mmseg-$(MMSEG).txt
	@$(if $(filter openmmlab,$(MMSEG)),$(RUN) requirements/stub_mmcv_ext.py)
	@touch $@
