# `make` alone lists what there is. PYTHON=/path/to/python3 chooses the interpreter of .venv.

PYTHON ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH_INSTALLED := .venv/.bench
SIM := $(BIN)/python -m kvstore.sim
JEPSEN := $(BIN)/python -m jepsen
PROTOCOL := kvstore/v1/__init__.py
PROTOS := $(wildcard proto/kvstore/v1/*.proto)

# Bytecode is kept, whatever the environment says: else each of the hundreds of processes that tests start
# compiles the whole package, and each of their workers all tests.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help venv run test check structure model swim tables format packages airports demo bench bench-slow bench-transfer bench-engine bench-overload bench-hostile bench-large bench-mix bench-one bench-hosts bench-transports bench-peers bench-growth bench-open sim sim-long planted planted-boundary mutants jepsen jepsen-long jepsen-hunt heal overload operations backup stops fuzz hostile power-loss proto clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST))

venv: $(INSTALLED) $(PROTOCOL) ## make .venv and install kvstore into it

run: venv ## start three nodes on this machine and show their state until Ctrl-C
	@$(BIN)/kvctl cluster run

test: venv ## run the fast tests; ARGS="-k NAME" goes to pytest
	@$(BIN)/python -m pytest -n 3 $(ARGS)

check: venv ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

structure: venv ## circles of imports, modules that many use, large classes, sizes: figures, and what is over its bound
	@$(BIN)/python -m tools.structure

tables: venv ## write the tables in docs/ that are made from the source
	@$(BIN)/python -m tools.tables

format: venv ## put every file into the form that check wants
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

swim: venv ## the failure detector in simulated clusters of 10, 100 and 1,000 members: takes minutes
	@$(BIN)/python -m tests.property.gossip_at_size $(MEMBERS)

model: venv ## explore the protocol of membership completely, with larger bounds than make test; prints how many states
	@KVSTORE_MODEL=1 $(BIN)/python -m pytest -q --timeout 3600 tests/model

packages: venv ## build sdist and wheel, install them into each Python that is here, and use them
	@$(BIN)/python -m tools.packages

airports: venv ## write airports.jsonl, 28,000 real records, which examples import
	@$(BIN)/python -m kvstore.local.airports airports.jsonl

demo: venv ## import the world's airports, kill nodes, lose nothing
	@$(BIN)/python -m kvstore.local.demo

bench: venv ## measure throughput and latency of a three-node cluster
	@$(BIN)/python -m bench

bench-overload: venv ## offer a three-node cluster four times what it can do
	@$(BIN)/python -m bench.overload $(ARGS)
bench-hostile: venv ## attack a three-node cluster beside a well-behaved client
	@$(BIN)/python -m bench.hostile $(ARGS)

bench-large: venv ## measure puts of large values, and what small gets feel of them
	@$(BIN)/python -m bench.large $(ARGS)

bench-one: venv ## one caller: latency and CPU of both clients, beside an fdatasync and plain sockets
	@$(BIN)/python -m bench.one_caller $(ARGS)

bench-mix: venv ## gets and puts of hot keys, half and half and 19 to 1
	@$(BIN)/python -m bench.mix $(ARGS)

bench-hosts: venv ## one node and two on each of three hosts: throughput, and CPU of an operation
	@$(BIN)/python -m bench.hosts $(ARGS)

bench-transports: venv ## measure what a frame costs on the ways it could take between two processes
	@$(BIN)/python -m bench.transports $(ARGS)

bench-peers: $(BENCH_INSTALLED) ## measure kvstore beside etcd, Redis or Valkey, Dynomite and Cassandra, where they are installed
	@$(BIN)/python -m bench.peers $(ARGS)

bench-growth: venv ## measure what a put costs with 12 nodes instead of 3, and with 8 client processes instead of 1
	@$(BIN)/python -m bench.growth $(ARGS)

bench-open: venv ## measure the latency of requests that arrive at half of the peak rate
	@$(BIN)/python -m bench.open_loop $(ARGS)

bench-slow: venv ## measure what readers feel of one replica that is 50 times slower
	@$(BIN)/python -m bench.slow_replica $(ARGS)

bench-transfer: venv ## export 100,000 records of three nodes, beside the same records as plain JSON
	@$(BIN)/python -m bench.transfer $(ARGS)

bench-engine: $(BENCH_INSTALLED) ## measure the storage engine beside LevelDB, RocksDB and SQLite
	@$(BIN)/python -m bench.engine $(ARGS)

sim: venv ## simulated clusters: SEED=7 replays one, COUNT=200 runs that many; NODES=5 TIME=60 for each
	@$(SIM) $(if $(SEED),--seed $(SEED),--count $(or $(COUNT),$(SEEDS),200)) \
		$(if $(NODES),--nodes $(NODES)) $(if $(TIME),--time $(TIME)) $(if $(TRACE),--trace)

sim-long: venv ## 20 hours of simulated clusters and more; START=5000 begins with another seed
	@$(SIM) --count $(or $(COUNT),1200) --start $(or $(START),1) --nodes $(or $(NODES),5) --time $(or $(TIME),60)

jepsen: venv ## real nodes under faults, 2 minutes: every workload, every driver that is possible here
	@$(JEPSEN) suite $(if $(SEED),--seed $(SEED))

jepsen-long: venv ## one long run: WORKLOAD=set NEMESIS=network+hosts TIME=900 QUORUM=sloppy SEED=7
	@$(JEPSEN) run --workload $(or $(WORKLOAD),all) --nemesis $(or $(NEMESIS),network+hosts) \
		--time $(or $(TIME),900) --quorum $(or $(QUORUM),strict) --rate $(or $(RATE),700) --threads 100 \
		$(if $(SEED),--seed $(SEED)) $(if $(DRIVER),--driver $(DRIVER)) $(ARGS)

hostile: venv ## real servers under 100,000 damaged messages, and every field at its ends sent to every node
	@KVSTORE_HOSTILE=1 $(BIN)/python -m pytest -q -s tests/hostile/test_mutated_messages.py tests/hostile/test_every_field.py

fuzz: venv ## every decoder under two million damaged inputs: SEED=7 EXECUTIONS=5000000
	@$(BIN)/python -m tests.fuzz --executions $(or $(EXECUTIONS),2000000) --seed $(or $(SEED),0)

power-loss: venv ## 200 times cut the power of a disk that is written to (root only): CYCLES=1000
	@POWER_LOSS_CYCLES=$(or $(CYCLES),200) $(BIN)/python -m pytest -s --timeout 3600 tests/crash/test_power_loss.py

planted: venv ## plant each defect that broke others, and run seeds until one catches it; ARGS="--defect NAME"
	@$(BIN)/python -m tests.sim.planted $(ARGS)

planted-boundary: venv ## take out each check of what arrives, and see its attack caught; ARGS="--check WORD"
	@$(BIN)/python -m tests.hostile.planted $(ARGS)

mutants: venv ## plant COUNT=40 small defects, print what no test notices: SEED=7 FILES=kvstore/quorum/reap.py
	@$(BIN)/python -m tools.mutants --count $(or $(COUNT),40) $(if $(SEED),--seed $(SEED)) $(FILES)

jepsen-hunt: venv ## plant defects in real nodes and see that each is found (root only): ARGS=repair-dropped
	@$(JEPSEN) hunt $(ARGS)

heal: venv ## real nodes: one misses 20,000 writes and deletes, anti-entropy alone brings them back
	@KVSTORE_ANTI_ENTROPY_WRITES=20000 $(BIN)/python -m pytest -q -s tests/cluster/test_anti_entropy.py -k was_down

overload: venv ## real nodes: one of three stands still for a minute under large writes, memory stays bounded
	@KVSTORE_OVERLOAD_SECONDS=60 $(BIN)/python -m pytest -q -s tests/cluster/test_overload.py -k stopped_replica

operations: venv ## do to real nodes what docs/operations.md tells operators to do, under load
	@KVSTORE_OPERATIONS=1 $(BIN)/python -m pytest -q tests/cluster/test_operations.py

backup: venv ## export 100,000 mixed records, wipe all nodes and import them again, under kills: COUNT=20000
	@KVSTORE_EXPORT_RECORDS=$(or $(COUNT),100000) \
		$(BIN)/python -m pytest -q -s --timeout 3600 tests/cluster/test_export_import.py

stops: venv ## real nodes under load are stopped 200 times, in every way: COUNT=1000 SEED=7
	@KVSTORE_STOPS=$(or $(COUNT),200) KVSTORE_STOPS_SEED=$(or $(SEED),1) \
		$(BIN)/python -m pytest -q -s tests/cluster/test_stops.py

proto: $(INSTALLED) ## generate kvstore/v1 from proto/
	@$(BIN)/python hatch_build.py

clean: ## remove everything made here, except the data of clusters
	rm -rf .venv build dist kvstore/v1 .*_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt requirements.txt tools/setup-venv
	@PYTHON="$(PYTHON)" sh tools/setup-venv

$(BENCH_INSTALLED): $(INSTALLED) $(PROTOCOL)
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
		$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@

$(PROTOCOL): $(PROTOS) hatch_build.py | $(INSTALLED)
	@$(BIN)/python hatch_build.py

# Another interpreter than the one that .venv was made with makes it anew.
ifneq ($(PYTHON),)
ifneq ($(PYTHON),$(shell cat .venv/.python 2>/dev/null))
.PHONY: $(INSTALLED)
endif
endif
