#!/usr/bin/env python3
"""Adds up what test runners said in a log; prints `N passed, M failed, K skipped` and exits 0 only if all is well."""

import re
import sys

CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
UNITTEST = re.compile(r"^Ran (\d+) tests? in ")
UNITTEST_END = re.compile(r"^(OK|FAILED)(?: \((.*)\))?$")
EXIT = re.compile(r"^(cargo|python): exit (\d+)$")
NAMED = re.compile(r"^(?:test (.+) \.\.\. FAILED|(?:FAIL|ERROR): (test\w+) \(.*)$")


def main(path):
    passed = failed = skipped = ran = 0
    broken = []
    named = []
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in map(str.rstrip, log):
            if found := CARGO.match(line):
                ok, bad, ignored = map(int, found.groups())
                passed, failed, skipped = passed + ok, failed + bad, skipped + ignored
            elif found := UNITTEST.match(line):
                ran = int(found.group(1))
            elif found := UNITTEST_END.match(line):
                counts = dict(part.split("=") for part in (found.group(2) or "").split(", ") if "=" in part)
                bad = int(counts.get("failures", 0)) + int(counts.get("errors", 0))
                left = int(counts.get("skipped", 0))
                # One test may fail more than once, in parts.
                passed, failed, skipped = passed + max(0, ran - bad - left), failed + bad, skipped + left
            elif (found := EXIT.match(line)) and found.group(2) != "0":
                broken.append(line)
            elif found := NAMED.match(line):
                named.append(found.group(1) or found.group(2))
    for name in named:
        print(f"failed: {name}")
    # A runner that fails without a failed test did not get that far: it did not compile, or it crashed.
    if broken and failed == 0:
        failed = len(broken)
        print(*broken, sep="\n")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
