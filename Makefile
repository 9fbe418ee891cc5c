# `make` alone says what there is. The environment is made, or renewed, when it is needed.

BIN := .venv/bin
READY := .venv/.stamp
# Evaluated by the recipe's shell, so that only targets that need a broker look for one.
BROKER = OUTRIDER_MOSQUITTO="$$(scripts/find-mosquitto)" && export OUTRIDER_MOSQUITTO
# One more than there are processors: many tests wait for processes that they have started.
WORKERS = $$(($$(nproc) + 1))

.DEFAULT_GOAL := help
.PHONY: help demo test properties e2e crash-matrix fuzz soak simulate outage lint docs bench conformance clean

help: ## say what there is
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

demo: $(READY) ## 3 minutes: 8 devices, one bad model, one cut link; options: ARGS="..."
	@$(BROKER) && $(BIN)/outrider demo $(ARGS)

test: lint ## lint, then all tests but whole fleets
	@$(BROKER) && $(BIN)/pytest -q -n $(WORKERS) --ignore=tests/e2e --ignore=tests/long

e2e: $(READY) ## whole fleets: the demo's scenes one by one, kills, hostile messages, the tutorial
	@$(BROKER) && $(BIN)/pytest -q tests/e2e

properties: $(READY) ## property tests with examples that nobody has seen; options: ARGS="-k waves"
	@$(BROKER) && OUTRIDER_EXAMPLES=others $(BIN)/pytest -q -n $(WORKERS) -m hypothesis --ignore=tests/e2e $(ARGS)

crash-matrix: $(READY) ## every operation of an update, interrupted in every way; options: ARGS="--minutes 10"
	@$(BROKER) && $(BIN)/python -m tests.faults.run $(ARGS)

fuzz: $(READY) ## wrong payloads into the decoder, for 10 minutes; options: ARGS="--minutes 1"
	@$(BIN)/python -m tests.fuzz.run $(ARGS)

soak: $(READY) ## 200 random fault schedules over real processes; options: ARGS="--seed 1"
	@$(BROKER) && $(BIN)/python -m tests.soak.run $(ARGS)

simulate: $(READY) ## 1,000 small fleets and a million devices in virtual time; options: ARGS="--seed 1"
	@$(BIN)/python -m tests.simulation.rollouts.run $(ARGS)

outage: $(READY) ## a month without a link and a year of restarts, on a real file
	@$(BIN)/pytest -q -s tests/long

lint: $(READY) ## format, style, types, and who may import whom
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## write the pages of docs/reference that are made from the code
	@$(BIN)/python scripts/reference.py

bench: $(READY) ## one measurement: make bench NAME=fanout
	@test -f "tests/bench/$(subst -,_,$(NAME)).py" || { echo "make bench NAME=x, where x is one of:" \
	    $$(cd tests/bench 2>/dev/null && ls *.py | sed 's/\.py$$//'); exit 2; }
	@$(BROKER) && $(BIN)/python "tests/bench/$(subst -,_,$(NAME)).py" $(ARGS)

conformance: $(READY) ## the public TUF conformance suite: make conformance SUITE=path
	@PYTHON=$(BIN)/python scripts/tuf-conformance "$(or $(SUITE),$(TUF_CONFORMANCE))" $(ARGS)

clean: ## remove what was built and cached; .venv stays
	rm -rf build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt scripts/setup
	@scripts/setup
	@touch $@
