# The only runner. `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
# two at a time where neither needs the other (01 and the compiler), unless -j says otherwise; a make below has its parent's
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
  MAKEFLAGS += -j2
endif

SITE ?= datong_twin
SIZE ?= full
VENV := .venv
# PYTHON=python uses the active environment (conda, say) instead of .venv
PYTHON ?= $(VENV)/bin/python
NOTEBOOKS := 01_ingest 02_sbas 03_constrained_sbas 04_merge 05_thaw_scaling 06_degradation 07_recession 08_attribution

# where the executed copies, which are the stamps, lie
ifeq ($(SIZE),quick)
  RUN := build/quick$(if $(filter-out datong_twin,$(SITE)),/$(SITE))
else
  RUN := build/$(SITE)
endif
STAMPS := $(NOTEBOOKS:%=$(RUN)/%.ipynb)
ENV := $(if $(filter $(VENV)/bin/python,$(PYTHON)),$(VENV)/.installed)

# one BLAS thread per process: dask and numba bring the threads; -p SCHEDULER reaches the notebooks by its usual name
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MPLBACKEND ?= agg
export PYTHONHASHSEED := 0
# nothing of the surrounding shell: a hub's kernels, the coordinate data of another GDAL, a user's matplotlibrc
export JUPYTER_PATH :=
export JUPYTER_PREFER_ENV_PATH := 1
export MATPLOTLIBRC :=
ifdef ENV
  unexport PROJ_LIB PROJ_DATA GDAL_DATA GDAL_DRIVER_PATH PYTHONHOME
endif
export JUPYTER_PLATFORM_DIRS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
ifdef SCHEDULER
  export DASK_SCHEDULER_ADDRESS := $(SCHEDULER)
endif

# a stamp is worth nothing without every output its notebook listed, each with something in it: without them it goes
$(shell whole() { test -f "$$1" && while IFS= read -r f; do test -s "$$f" || return 1; done < "$$1"; }; \
  for s in $(STAMPS); do test ! -f $$s || whole $${s%.ipynb}.outputs || rm -f $$s; done)

# One make at a time works on a notebook or on the environment. A second one says so, waits, and takes what the first made,
# also where the first was done before the second came to it (but not under make -B).
# The lock is the kernel's and falls with the last process that holds it, however that ends; the file itself means nothing.
# A file system without locks is said, and make goes on. `set` is for make 3.81, which knows no .SHELLFLAGS.
TAKE = $$'import errno, fcntl, sys\ntry: fcntl.flock(9, int(sys.argv[1]))\nexcept OSError as e: sys.exit(e.errno == errno.EWOULDBLOCK or print("no file locks here: run one make at a time"))'
LOCK = set -eu -o pipefail; exec 9>>$(1); python3 -c $(TAKE) 6 || { \
  echo "$(2): another make is at work on it, waiting"; python3 -c $(TAKE) 2; }; \
  $(if $(findstring B,$(firstword -$(MAKEFLAGS))),:,test -n "$$(find $^ -newer $@ 2>&1)" || exit 0)

help: ## list the targets
	@grep -hE '^[$$A-Za-z0-9_(]+[A-Za-z0-9_)]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^\$$\(NOTEBOOKS\)/NN_name/; s/^([^:]*):.*## /\1\t/' | expand -t 10
	@echo "analyses: $(NOTEBOOKS)"

# .part is there while pip works: an environment that was killed half-way is made anew
$(VENV)/.installed: requirements.lock pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed")'
	@mkdir -p build
	@$(call LOCK,build/environment.lock,$(VENV)); \
	{ test ! -e $(VENV)/.part && $(VENV)/bin/python -m pip --version; } > /dev/null 2>&1 || python3 -m venv --clear $(VENV); \
	touch $(VENV)/.part; \
	echo "$(VENV) from requirements.lock"; \
	pip="$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check"; \
	{ $$pip --require-hashes -r requirements.lock && $$pip --no-deps --no-build-isolation -e .; } \
	  || { rm -f $(VENV)/.part; exit 1; }; \
	rm -f $(VENV)/.part; touch $@

env: $(ENV) ## create .venv from requirements.lock

# --- the study ---------------------------------------------------------------------------------------------
# Each notebook depends on its file, on the helpers it uses, on the site file, and on the notebooks it reads.
H := src/helpers
module = $(wildcard $(foreach m,$(1),$(H)/$(m).py $(H)/$(m)/*.py src/$(m)/*.py))
IO := $(H)/io/site.py $(H)/io/run.py $(H)/io/store.py $(H)/io/results.py $(call module,plot space timefunc)
# what was counted over many seeds and is quoted beside the scene
counted = $(wildcard $(foreach m,$(1),data/calibration/$(m)*.csv))
INVERSION := $(call module,sbas inversion)
SITEFILE := $(if $(wildcard data/sites/$(SITE).yml),data/sites/$(SITE).yml)
# numba compiles the inversion once, for half a minute: beside 01 instead of in 02, where the site has radar
COMPILED := $(if $(SITEFILE),$(if $(shell grep '^  sar:' $(SITEFILE)),build/.compiled))
# Papermill's validator would build a grammar of URIs at every start, for a second, and no notebook holds one to check.
# A half-executed copy serves nobody: it is written once, at the end or where it failed.
PAPERMILL := -c 'import sys; sys.modules["rfc3987_syntax"] = None; from papermill.__main__ import papermill; papermill()' \
  --no-progress-bar --no-request-save-on-cell-execute --autosave-cell-every 0 --log-level WARNING \
  -k python3 --cwd notebooks
# What the site lacks is asked once, before any notebook that needs something: a line for each that cannot run, and a copy of
# it with that line, which is its stamp. A notebook whose data turn out to be too few ends in MissingInput: skipped as well.
SKIPPED := $(RUN)/skipped.txt
$(SKIPPED): $(SITEFILE) $(H)/io/site.py $(H)/io/runnable.py | $(ENV)
	@mkdir -p $(RUN)
	@$(call LOCK,$(RUN)/skipped.lock,$(SITE)); \
	$(PYTHON) -m helpers.io.runnable $(SITE) $(SIZE) $(RUN) > $@.part 2> $(RUN)/skipped.log \
	  || { tail -n 1 $(RUN)/skipped.log; exit 1; }; \
	mv -f $@.part $@
$(filter-out %/01_ingest.ipynb,$(STAMPS)): | $(SKIPPED)

# Two kernels that start at once may choose the same port, and one of them dies before it ran anything: it is started anew.
# The stamp bears the time at which the run began: what changes while it runs is newer, and the next make runs it again.
$(STAMPS): $(RUN)/%.ipynb: notebooks/%.ipynb $(IO) $(SITEFILE) | $(ENV)
	@mkdir -p $(RUN)
	@$(call LOCK,$(RUN)/$*.lock,$*); \
	touch $(RUN)/$*.lock; \
	skipped() { : > $(RUN)/$*.outputs; touch -r $(RUN)/$*.lock $@.part.ipynb; mv -f $@.part.ipynb $@; exit 0; }; \
	if grep -s '^$*: ' $(SKIPPED); then cp $(RUN)/$*.skipped.ipynb $@.part.ipynb; skipped; fi; \
	echo "$* ($(SITE), $(SIZE))"; \
	run() { $(PYTHON) $(PAPERMILL) -r site_name $(SITE) -p size $(SIZE) $< $@.part.ipynb > $(RUN)/$*.log 2>&1; }; \
	run || { grep -q 'Kernel died before replying' $(RUN)/$*.log && run; } || { \
	       said=$$(grep -m 1 'MissingInput: ' $(RUN)/$*.log) && { echo "$${said#*MissingInput: }"; skipped; }; \
	       mv -f $@.part.ipynb $(RUN)/$*.failed.ipynb 2>/dev/null || true; \
	       sed -n '/^Traceback\|Error/,$$p' $(RUN)/$*.log | tail -n 30; \
	       echo "$* failed; see $(RUN)/$*.failed.ipynb and $(RUN)/$*.log"; exit 1; }; \
	rm -f $(RUN)/$*.failed.ipynb; \
	touch -r $(RUN)/$*.lock $@.part.ipynb; \
	mv -f $@.part.ipynb $@

$(RUN)/01_ingest.ipynb: $(call module,twin readers) $(filter-out $(IO),$(wildcard $(H)/io/*.py)) data/sites/registry.csv
$(RUN)/02_sbas.ipynb: $(RUN)/01_ingest.ipynb $(call module,network constrained) $(INVERSION) | $(COMPILED)
$(RUN)/03_constrained_sbas.ipynb: $(RUN)/02_sbas.ipynb $(INVERSION) $(call module,constrained) $(call counted,constrained)
$(RUN)/04_merge.ipynb: $(RUN)/03_constrained_sbas.ipynb $(call module,merge contrasts)
$(RUN)/05_thaw_scaling.ipynb: $(RUN)/04_merge.ipynb $(call module,thaw) $(call counted,thaw sg27)
$(RUN)/06_degradation.ipynb: $(RUN)/05_thaw_scaling.ipynb $(call module,contrasts merge) $(call counted,epoch_contrast)
$(RUN)/07_recession.ipynb: $(RUN)/01_ingest.ipynb $(RUN)/06_degradation.ipynb $(call module,recession)
$(RUN)/08_attribution.ipynb: $(RUN)/06_degradation.ipynb $(call module,attribution) $(call counted,attribution)

build/.compiled: $(call module,compile_kernels inversion) $(H)/network/closure.py | $(ENV)
	@mkdir -p build
	@$(call LOCK,build/compiled.lock,numba); $(PYTHON) -m helpers.compile_kernels; touch $@

$(NOTEBOOKS): %: $(RUN)/%.ipynb ## run one analysis and what it needs, e.g. make 08_attribution SIZE=quick

DEFAULT := $(if $(filter datong_twin,$(SITE)),$(filter full,$(SIZE)))
all: $(STAMPS) $(if $(DEFAULT),RC1.md) ## run the whole study and regenerate every figure (SITE=name, SCHEDULER=tcp://host:port)
	@$(if $(filter datong_twin,$(SITE)),COMPENDIUM_RESULTS=$(SIZE) $(PYTHON) -m pytest -q -p no:cacheprovider -m results tests/test_results.py)

RC1.md: data/RC1.template.md $(STAMPS)
	@$(call LOCK,build/RC1.lock,$@); $(PYTHON) -m helpers.io.answers data/RC1.template.md data/results RC1.md

FIGURES := $(if $(filter quick,$(SIZE)),$(RUN)/figures,figures$(if $(filter-out datong_twin,$(SITE)),/$(SITE)))
RESULTS := $(if $(filter quick,$(SIZE)),$(RUN)/results,data/results$(if $(filter-out datong_twin,$(SITE)),/$(SITE)))
report: all ## build/report/index.html: executed notebooks, gallery, RC1 and results; opens without a network
	@$(call LOCK,build/report.lock,$@); $(PYTHON) -m helpers.io.report $(SITE) $(RUN) $(FIGURES) $(RESULTS) $(if $(DEFAULT),RC1.md,none) build/report
	@echo build/report/index.html

quick: ## the whole study on a small twin; writes below build/quick only
	@$(MAKE) --no-print-directory all SIZE=quick

data: | $(ENV) ## get and check the raw inputs of a site (SITE=name): found, incomplete, missing
	@$(PYTHON) -m helpers.io.check $(SITE) $(SIZE)

try: $(ENV) ## what if: make try ONE=05_thaw_scaling P='-p name value'; writes below build/try only
	@test -n "$(ONE)" || { echo "name the notebook: make try ONE=05_thaw_scaling P='-p name value'"; exit 2; }
	@mkdir -p build/try
	@$(call LOCK,build/try/$(ONE).lock,$(ONE)); \
	$(PYTHON) $(PAPERMILL) \
	  $(P) -r site_name $(SITE) -p size $(SIZE) -p out build/try notebooks/$(ONE).ipynb build/try/$(ONE).ipynb
	@echo "build/try/$(ONE).ipynb, build/try/figures, build/try/results"

# --- quality -----------------------------------------------------------------------------------------------
test: $(ENV) ## run the tests (MARK=slow for the slow ones, ARGS=... for pytest)
	@$(PYTHON) -m pytest -q $(if $(MARK),-m "$(MARK)") $(ARGS)

check: $(ENV) ## lint, clean notebooks, links and figures of the README
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m pytest -q -p no:cacheprovider tests/test_repository.py

tidy: $(ENV) ## format the code, strip the notebooks
	@$(PYTHON) -m nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.language_info metadata.widgets" notebooks/*.ipynb
	@$(PYTHON) -m ruff check --fix -q . || true
	@$(PYTHON) -m ruff format -q .

bench: $(ENV) ## time what has a benchmark; tables in data/bench
	@for script in bench/bench_*.py; do $(PYTHON) $$script || exit 1; done

expected: $(ENV) ## rewrite tests/expected_$(SIZE).csv from the results there are: a deliberate act
	@$(PYTHON) tests/test_results.py $(SIZE)

lock: ## rewrite requirements.lock for Python 3.11 to 3.13 (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command "make lock" -q -o requirements.lock

lab: $(ENV) ## open the notebooks in JupyterLab (LAB=... for its options); a click on a map shows a pixel's series
	@env -u MPLBACKEND $(PYTHON) -m jupyterlab notebooks $(LAB)

clean: ## remove what a run of this site wrote, but its raw inputs
	rm -rf $(RUN) data/derived/$(SITE)

.PHONY: help env all quick report data try test check tidy bench expected lock lab clean $(NOTEBOOKS)
