# make demo           train without labels on a generated data set, and print the table
# make demo SEEDS=3   the same over three seeds, with mean and spread
# make test           everything CI runs
# make test-trackers  exported models in BoxMOT and Roboflow's reid, in an environment of their own
PYTHON ?= python3
VENV ?= .venv
SEEDS ?= 1
TRACKERS ?= .venv-trackers
READY = $(VENV)/.ready

.PHONY: demo test test-trackers lint clean

demo: $(READY)
	$(VENV)/bin/python projects/demo/run.py --seeds $(SEEDS)

test: $(READY) lint
	$(VENV)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# MODEL="CONFIG KEY VALUE ..." takes a network of yours instead of one trained for a minute.
test-trackers: $(READY) $(TRACKERS)/.ready
	$(VENV)/bin/python tests/trackers/ours.py outputs/trackers $(MODEL)
	$(TRACKERS)/bin/python tests/trackers/in_boxmot.py outputs/trackers
	$(TRACKERS)/bin/python tests/trackers/in_reid.py outputs/trackers

$(TRACKERS)/.ready: Makefile
	$(PYTHON) -m venv $(TRACKERS)
	$(TRACKERS)/bin/python -m pip install --quiet torch torchvision onnx onnxruntime
	$(TRACKERS)/bin/python -m pip install --quiet boxmot==25.0.0 reid==0.1.0rc1
	touch $@

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy fastreid_cc

$(READY): setup.py fastreid_cc/requirements.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed, found $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet torch torchvision
	$(VENV)/bin/python -m pip install --quiet --editable ".[test]"
	$(VENV)/bin/python -m pip install --quiet --no-deps fastreid==1.4.0
	touch $@

clean:
	rm -rf $(VENV) $(TRACKERS) outputs build dist *.egg-info
