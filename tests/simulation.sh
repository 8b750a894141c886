#!/bin/sh
# The deterministic simulation.
#   SEEDS=200     so many seeds, on all cores
#   SEED=17       one seed, with its trace
#   MUTATE=NAME   show instead that this deliberate fault is found; `list` names them, `all` takes one after the other
set -eu
cd "$(dirname "$0")/.."

cargo=cargo
if command -v mold >/dev/null 2>&1; then cargo='mold -run cargo'; fi
target=${CARGO_TARGET_DIR:-target}

# The server is named, too, so that shared dependencies have the features that they always have.
if [ -n "${MUTATE:-}" ]; then
    # Another feature: our own crates from the journal upwards are built once more, and kept beside the honest ones.
    $cargo build --release -p mainstem-server -p mainstem-simulation --bin simulate --features mainstem-simulation/mutations
    exec "$target/release/simulate" --seeds "${SEEDS:-10000}" --mutation "$MUTATE"
fi
$cargo build --release -p mainstem-server -p mainstem-simulation --bin simulate
if [ -n "${SEED:-}" ]; then
    exec "$target/release/simulate" --seed "$SEED"
fi
exec "$target/release/simulate" --seeds "${SEEDS:-200}"
