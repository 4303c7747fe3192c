# Every command a person or CI runs. `make help` lists them.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# Tests start hundreds of processes, and what these import is the same.
unexport PYTHONDONTWRITEBYTECODE
# Two files of tests beside each other; more would disturb those that start processes.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

.DEFAULT_GOAL := help
.PHONY: help train serve airflow demo evidently test test-all test-slow check manifests format lock image clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

train: $(VENV)/train.done ## Install what training needs and train on the bundled sample; ARGS="..." adds overrides.
	$(BIN)/python train.py $(ARGS)

serve: $(VENV)/serve.done ## Install what serving needs, and serve the newest model to this machine; ARGS as above.
	$(BIN)/python scripts/export.py bundle=latest
	$(BIN)/python scripts/serve.py archive=latest $(ARGS)

demo: $(VENV)-airflow/done $(VENV)/retrain.done ## Install, and show the whole loop: train, serve, drift, alarm, retrain, promote, roll back.
	AIRFLOW_VENV=$(abspath $(VENV)-airflow) $(BIN)/python scripts/demo.py $(ARGS)

airflow: $(VENV)-airflow/done $(VENV)/retrain.done ## Install Airflow beside the project, and start it with the DAGs of deploy/airflow.
	AIRFLOW_VENV=$(abspath $(VENV)-airflow) FAKENEWS_PYTHON=$(abspath $(BIN)/python) deploy/airflow/standalone

evidently: $(VENV)-evidently/done ## Install Evidently beside the project, for its report of drift.
	@echo "scripts/monitor.py ... evidently=$(VENV)-evidently/bin/python"

test: $(VENV)/dev.done ## Install, and run the tests.
	$(PYTEST) $(ARGS)

# In their order: files of one test would come last, and are the longest.
test-slow: $(VENV)/slow.done $(VENV)-airflow/done $(VENV)-evidently/done ## Run the slow integration tests.
	$(PYTEST) --no-loadscope-reorder -m slow --durations=25 $(ARGS)

test-all: test test-slow ## Run both.

check: $(VENV)/dev.done ## Lint, formatting and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

manifests: $(VENV)/dev.done ## Check what deploys: Kubernetes, EKS.
	$(BIN)/python -m pytest tests/deploy $(ARGS)

format: $(VENV)/dev.done ## Format the code and mend what the linter can mend.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Choose new versions of everything and write requirements.lock.
	PYTHON=$(PYTHON) EXTRAS=$(ALL) scripts/lock.sh

image: ## Build the training image without a container engine and watch it work, as root; ARGS="train predict mlflow".
	PYTHON=$(PYTHON) .ci/image $(ARGS)

clean: ## Remove the environment and all caches; runs and the MLflow store stay.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build src/*.egg-info

# An extra is installed again when its versions or the project's dependencies change.
$(VENV)/%.done: pyproject.toml requirements.lock
	PYTHON=$(PYTHON) scripts/install.sh $(VENV) --constraint requirements.lock --editable ".[$(EXTRAS)]"
	@touch $@

# Versions of their own: nothing of this project is installed beside them.
$(VENV)-%/done: deploy/%/requirements.txt
	PYTHON=$(PYTHON) scripts/install.sh $(VENV)-$* --requirement $<
	@touch $@

$(VENV)/train.done: EXTRAS := train
$(VENV)/serve.done: EXTRAS := train,serve,web
$(VENV)/retrain.done: EXTRAS := train,serve,web,monitor,retrain
# All but what only the slow tests need, and all.
DEV := train,postgres,s3,etcd,submitit,serve,web,monitor,retrain,dev
$(VENV)/dev.done: EXTRAS := $(DEV)
ALL := $(DEV),ray,bench,slow
$(VENV)/slow.done: EXTRAS := $(ALL)
