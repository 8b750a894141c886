# What a newcomer, a developer and the CI run. Each target does its own set-up.
.PHONY: help setup demo demo-full test test-clients lint bench bench-kafka guarantees simulate fuzz

CARGO := $(if $(shell command -v mold),mold -run cargo,cargo)
TARGET := $(or $(CARGO_TARGET_DIR),target)
export CARGO_TARGET_DIR := $(abspath $(TARGET))

help:
	@echo 'make demo         a server, a handler, kill -9, and the proof, on real data'
	@echo 'make demo-full    the same with all 336,776 departures'
	@echo 'make test         every test; ends with one line of counts'
	@echo 'make test-clients Kafka clients that nobody here wrote, against the real server'
	@echo 'make lint         formatting and clippy'
	@echo 'make bench        benchmarks against the limits of this machine'
	@echo 'make bench-kafka  the same load of the same Kafka client on Mainstem and on Apache Kafka'
	@echo 'make guarantees   the promises, each with its long test (KILLS=50, MUTATE=list)'
	@echo 'make simulate     one seed, one world: faults and crashes (SEEDS=200, SEED=17, MUTATE=list)'
	@echo 'make fuzz         what reads bytes from outside, against bytes of all kinds (RUNS=10000000, ONLY=batch)'

setup:
	@.ci/setup

demo: setup
	$(CARGO) build --release --bin mainstem
	python3 examples/flights/demo.py

demo-full: setup
	$(CARGO) build --release --bin mainstem
	python3 examples/flights/demo.py --file "$$(examples/flights/fetch.sh)"

test: setup
	@.ci/test

test-clients: setup
	$(CARGO) build --release --bin mainstem
	@CLIENTS=all tests/clients.sh

lint: setup
	$(CARGO) fmt --all --check
	RUSTC_WORKSPACE_WRAPPER=$$(command -v clippy-driver) CLIPPY_ARGS='-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__' \
		$(CARGO) build --release --workspace --all-targets

bench: setup
	@tests/bench.sh

bench-kafka: setup
	$(CARGO) build --release --bin mainstem
	python3 tests/clients/bench.py
	python3 .ci/bench_table.py $(CARGO_TARGET_DIR)/bench

guarantees: setup
	@KILLS=$(KILLS) MUTATE=$(MUTATE) tests/guarantees.sh

simulate: setup
	@SEEDS=$(SEEDS) SEED=$(SEED) MUTATE=$(MUTATE) tests/simulation.sh

fuzz: setup
	@RUNS=$(RUNS) ONLY=$(ONLY) tests/fuzz.sh
