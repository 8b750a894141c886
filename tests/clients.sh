#!/bin/sh
# Kafka clients that nobody here wrote, against the real server. The last line counts what passed, failed and was skipped.
set -u
cd "$(dirname "$0")/.."
missing=""
command -v kcat >/dev/null 2>&1 || missing="$missing kcat"
command -v mvn >/dev/null 2>&1 || missing="$missing maven default-jdk-headless"
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    # shellcheck disable=SC2086 # a list of packages
    { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1
fi
log="${CARGO_TARGET_DIR:-target}/clients.log"
{
    for script in tests/clients/test_*.py; do
        python3 "$script" --verbose 2>&1
        echo "python: exit $?"
    done
} | tee "$log"
exec python3 .ci/summarise.py "$log"
