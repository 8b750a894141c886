#!/bin/sh
# Every fuzz target RUNS times (1,000,000 unless said otherwise) over what was found before and the kept seeds; ONLY=name for
# one. Prints runs, rate and crashes of each. What it finds is kept in target/fuzz, a crash in target/fuzz/crashes.
set -eu
cd "$(dirname "$0")/.."
folder=$(pwd)/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
# Nothing of the workspace's own flags; what is compiled for the host and not for itself is left without instruments.
unset RUSTC_WORKSPACE_WRAPPER CLIPPY_ARGS || true
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --quiet --release --locked --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$folder/build"
program=$folder/build/$host/release/target
mkdir -p "$folder/crashes"
failed=0
printf '%-14s %14s %12s %10s\n' target runs runs/s crashes
for seeds in fuzz/seeds/*.hex; do
    target=$(basename "$seeds" .hex)
    [ "${ONLY:-$target}" = "$target" ] || continue
    mkdir -p "$folder/$target" "$folder/seeds/$target"
    python3 - "$seeds" "$folder/seeds/$target" <<'PYTHON'
import pathlib, sys
for number, line in enumerate(pathlib.Path(sys.argv[1]).read_text().splitlines()):
    pathlib.Path(sys.argv[2], str(number)).write_bytes(bytes.fromhex(line))
PYTHON
    log=$folder/$target.log
    crashes=0
    TARGET=$target "$program" -runs="${RUNS:-1000000}" -max_len=4096 -rss_limit_mb=1024 -timeout=60 -print_final_stats=1 \
        -artifact_prefix="$folder/crashes/$target-" "$folder/$target" "$folder/seeds/$target" >"$log" 2>&1 || crashes=1
    number() { sed -n "s/^stat::$1: *//p" "$log"; }
    printf '%-14s %14s %12s %10s\n' "$target" "$(number number_of_executed_units)" "$(number average_exec_per_sec)" "$crashes"
    if [ "$crashes" != 0 ]; then
        failed=1
        grep -A3 'panicked\|ERROR:' "$log" | head -8
        echo "again: TARGET=$target $program $(sed -n 's/.*Test unit written to //p' "$log" | tail -1)"
    fi
done
exit "$failed"
