#!/usr/bin/env python3
"""Prints what the benchmarks left in a folder of JSON files as one table, each figure with its limit, ratio and aim."""

import json
import sys
from pathlib import Path


def number(value):
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(folder):
    rows = [row for file in sorted(Path(folder).glob("*.json")) for row in json.loads(file.read_text())]
    if not rows:
        sys.exit(f"error: there is nothing in {folder}; run `make bench`")
    width = max(len(row["name"]) for row in rows)
    print(f"{'name':<{width}}  {'value':>14}  {'limit':>14}  {'ratio':>7}  {'aim':>10}  unit")
    for row in rows:
        figures = f"{number(row['value']):>14}  {number(row.get('limit')):>14}  {number(row.get('ratio')):>7}"
        print(f"{row['name']:<{width}}  {figures}  {number(row.get('aim')):>10}  {row['unit']}")


if __name__ == "__main__":
    main(sys.argv[1])
