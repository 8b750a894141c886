#!/bin/sh
# The promises of docs/guarantees.md, each with its long test.
#   KILLS=50      kill -9 of the real binary so often, and 400 times that in process
#   MUTATE=NAME   show instead that this deliberate fault is found; `list` names them, `all` takes one after the other
set -eu
cd "$(dirname "$0")/.."

cargo=cargo
if command -v mold >/dev/null 2>&1; then cargo='mold -run cargo'; fi
target=${CARGO_TARGET_DIR:-target}

case ${MUTATE:-} in
'')
    $cargo build --release --bin mainstem --bin guarantees
    "$target/release/guarantees" --kills "${KILLS:-50}"
    echo 'The tests can fail: each deliberate fault must be found.'
    MUTATE=all exec tests/guarantees.sh
    ;;
*)
    # Another feature: our own crates from the journal upwards are built once more, and kept beside the honest ones, so
    # that going back and forth builds nothing. What they depend on is not built again.
    $cargo build --release --bin guarantees --features mainstem-guarantees/mutations
    "$target/release/guarantees" --mutation "$MUTATE"
    ;;
esac
