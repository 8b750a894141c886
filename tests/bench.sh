#!/bin/sh
# Every benchmark, one after another on a quiet machine, then all rows as one table. Rows: target/bench/*.json.
set -eu
cd "$(dirname "$0")/.."
cargo=cargo
command -v mold >/dev/null 2>&1 && cargo="mold -run cargo"
for package in record:batch schema:decode journal:commit log:log store:store engine:commit broker:broker mainstem:produce \
    mainstem:latency mainstem:cleaning mainstem:fetch mainstem:cost mainstem:recovery grpc:grpc runtime:handlers query:scan; do
    crate=${package%%:*}
    [ "$crate" = mainstem ] || crate="mainstem-$crate"
    # The server beside it: with the same features of what they share, nothing is built once more.
    $cargo bench -p "$crate" -p mainstem-server --bench "${package##*:}"
done
# From producer to reader, through the binary and a server of its own.
target=${CARGO_TARGET_DIR:-target}
$cargo build --release -p mainstem-server --bin mainstem
"$target/release/mainstem" bench --readers 50 --dir "$target/bench" --output json >"$target/bench/end-to-end.tmp"
mv "$target/bench/end-to-end.tmp" "$target/bench/end-to-end.json"
exec python3 .ci/bench_table.py "$target/bench"
