# make lab needs Python 3.11 or newer, pip and make; the rest installs the development tools on its first call.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help lab test quick bench docs readme jupyter clean

help:
	@echo "make lab      install edm_lab into .venv, diagnose every card, write report/index.html"
	@echo "make test     check that notebooks and modules agree, run all notebooks, then pytest"
	@echo "make quick    the notebooks and tests that depend on what changed since the last commit (SINCE=main for another)"
	@echo "make bench    time and compare every sampler with its peers, into bench/results (half an hour)"
	@echo "make docs     build the site into _docs (no Quarto, no network)"
	@echo "make readme   write README.md from nbs/index.ipynb"
	@echo "make jupyter  open the notebooks in JupyterLab"
	@echo "make clean    remove what was built, except .venv"

lab: $(VENV)/.lab
	@mkdir -p report
	@$(BIN)/edm_lab diagnose all --html report/index.html
	@echo "The report: $(CURDIR)/report/index.html"

# Export and clean must find nothing to do: the modules are what the notebooks say, the notebooks are clean.
# Contents are compared, so that it holds in a working tree with changes as well as in a fresh clone.
test: $(VENV)/.dev
	@echo "Do the notebooks and edm_lab/ agree?"
	@$(call sums,before); $(BIN)/nbdev_export && $(BIN)/nbdev_clean || exit 1; $(call sums,after); \
	cmp -s $(VENV)/before $(VENV)/after || { echo "No: nbdev_export or nbdev_clean changed these files; look at them, then commit:"; \
	  diff $(VENV)/before $(VENV)/after | awk '/^[<>]/ { print "  " $$4 }' | sort -u; exit 1; }
	@echo "The notebooks:"
	@OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n-workers 2
	@echo "The tests:"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# What depends on a change, in minutes: make quick SINCE=main DEPTH=2
quick: $(VENV)/.dev
	@$(BIN)/python tools/quick.py --since $(or $(SINCE),HEAD~1) --depth $(or $(DEPTH),1)

# The peers of the extra [bench], without the image libraries that two of them ask for: only their samplers are used.
bench: $(VENV)/.dev
	@$(BIN)/python -m pip install -q einops
	@$(BIN)/python -m pip install -q --no-deps -c constraints.txt azula k-diffusion torchdiffeq torchsde trampoline dctorch
	@OMP_NUM_THREADS=1 $(BIN)/python bench/samplers.py

docs: $(VENV)/.dev
	@$(BIN)/python tools/site.py

readme: $(VENV)/.dev
	@$(BIN)/python tools/site.py --readme

jupyter: $(VENV)/.dev
	@$(BIN)/jupyter lab --ServerApp.root_dir=nbs $(if $(filter 0,$(shell id -u)),--allow-root)

clean:
	rm -rf _docs _proc report build dist edm_lab.egg-info .pytest_cache .ruff_cache .hypothesis
	find edm_lab nbs tests tools -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# A checksum for every file that export and clean may write.
sums = find nbs edm_lab README.md -type f ! -path '*/__pycache__/*' ! -path '*/.ipynb_checkpoints/*' -exec cksum {} + 2>/dev/null | sort -k3 > $(VENV)/$(1)

# Set-up, once: the stamps .lab and .dev are older than pyproject.toml or constraints.txt when there is something to install.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"edm_lab needs Python 3.11 or newer; $(PYTHON) is {v}. Try: make PYTHON=python3.12 lab")'
	@echo "A virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.lab: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing edm_lab and what it needs into $(VENV) (once; PyTorch is large, this takes minutes):"
	@$(call install,.)

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing edm_lab, what it needs and the development tools into $(VENV) (once; this takes minutes):"
	@$(call install,.[dev])
	@touch $(VENV)/.lab

# pip, with one line for each package that it fetches; warnings and errors pass as they are.
install = rm -f $@; { $(BIN)/python -m pip install -e '$(1)' -c constraints.txt && touch $@; } | awk ' \
	/^ *(Downloading|Processing|Using cached) / && $$2 !~ /metadata$$/ { n = split($$2, a, "/"); sub(/-(py[23]|cp[0-9]).*|\.tar\.gz.*/, "", a[n]); print "  " a[n] ($$3 ~ /^\([0-9]/ ? "  " $$3 " " $$4 : ""); fflush() } \
	/^Installing collected/ { print "  installing " NF - 3 " packages"; fflush() }'; test -e $@
