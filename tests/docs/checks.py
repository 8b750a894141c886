"""Commands too long to run for a page: whether everything they name is there."""

import functools
import json
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTING = re.compile(r"^([A-Z_]+)=")
KINDS = {"--bin": "bin", "--test": "test", "--bench": "bench", "--example": "example"}
CARGO = {"build", "test", "bench", "run"}
CARGO_FLAGS = {"--release", "--workspace", "--lib", "--no-fail-fast"}
# A folder in which tests or sources lie, and no build.
SOURCES = ["crates", "tests", "examples", "sdk"]


class Wrong(AssertionError):
    """The page says what is not so."""


def check(condition, message):
    if not condition:
        raise Wrong(message)


def is_heavy(words):
    """Whether the command is looked at instead of run."""
    program = program_of(words)[0]
    return program in {"make", "cargo", "python3"} or program.startswith((".ci/", "tests/", "examples/"))


def program_of(words):
    """The command without the settings before it."""
    while len(words) > 1 and SETTING.match(words[0]):
        words = words[1:]
    return words


def heavy(words):
    """Checks a heavy command; raises `Wrong`."""
    command = program_of(words)
    for word in words[: len(words) - len(command)]:
        name = SETTING.match(word).group(1)
        check(any(f'"{name}"' in text for text in sources().values()), f"nothing reads {name}")
    if command[0] == "make":
        make(command[1:])
    elif command[0] == "cargo":
        cargo(command[1:])
    else:
        script(command[1:] if command[0] == "python3" else command)


def make(words):
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if found := SETTING.match(word):
            check(f"$({found.group(1)})" in text, f"the Makefile does not use {found.group(1)}")
        else:
            # A folder of the target's name would satisfy make.
            check(re.search(rf"^{re.escape(word)}:", text, re.M), f"the Makefile has no target {word}")
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, f"make -n: {done.stderr}")


def cargo(words):
    check(words[0] in CARGO, f"cargo {words[0]} is not known to this test")
    own, rest = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    packages, targets, filters = [], [], []
    following = iter(own[1:])
    for word in following:
        if word in {"-p", "--package"}:
            packages.append(next(following, ""))
        elif word in KINDS:
            targets.append((KINDS[word], next(following, "")))
        elif word.startswith("-"):
            check(word in CARGO_FLAGS, f"cargo's {word} is not known to this test")
        else:
            filters.append(word)
    for name in packages:
        check(name in workspace(), f"there is no package {name}")
    chosen = {name: workspace()[name] for name in packages or workspace()}
    for kind, name in targets:
        found = any((kind, name) in package["targets"] for package in chosen.values())
        check(found, f"{' or '.join(packages) or 'the workspace'} has no {kind} {name}")
    if words[0] == "run" and not targets:
        check(any(kind == "bin" for package in chosen.values() for kind, _ in package["targets"]), "there is nothing to run")
    folders = [package["folder"] for package in chosen.values()]
    for name in filters:
        check(any(name in test for test in test_names(*folders)), f"no test of {' or '.join(chosen)} has {name} in its name")
    for word in rest:
        there = any(word in text for path, text in sources().items() if any(folder in path.parents for folder in folders))
        check(there, f"{' or '.join(chosen)} knows no {word}")


def script(words):
    path = ROOT / words[0]
    check(path.is_file(), f"there is no {words[0]}")
    check(path.suffix == ".py" or os.access(path, os.X_OK), f"{words[0]} is not executable")


@functools.cache
def workspace():
    """The packages of the workspace: their folders and targets."""
    command = ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, f"cargo metadata: {done.stderr}")
    return {
        package["name"]: {
            "folder": Path(package["manifest_path"]).parent,
            "targets": {(kind, target["name"]) for target in package["targets"] for kind in target["kind"]},
        }
        for package in json.loads(done.stdout)["packages"]
    }


@functools.cache
def sources():
    """Every Rust file of the tree with its text."""
    found = {}
    for folder in SOURCES:
        for path, folders, files in os.walk(ROOT / folder):
            folders[:] = [name for name in folders if name != "target"]
            for name in files:
                if name.endswith(".rs"):
                    file = Path(path, name)
                    found[file] = file.read_text(encoding="utf-8")
    return found


@functools.cache
def test_names(*folders):
    """The names of the test functions below these folders."""
    attribute = re.compile(r"^\s*#\[(\w+::)*test\b")
    function = re.compile(r"^\s*(?:async )?fn (\w+)")
    listed = re.compile(r'^\s*"(\w+)",$')
    found = set()
    for path, text in sources().items():
        if not any(folder in path.parents for folder in folders):
            continue
        marked = False
        # A suite with a harness of its own lists its tests.
        lists = "const TESTS: [Test;" in text
        for line in text.splitlines():
            if lists and (named := listed.match(line)):
                found.add(named.group(1))
            elif attribute.match(line):
                marked = True
            elif named := function.match(line):
                if marked:
                    found.add(named.group(1))
                marked = False
    return found


@functools.cache
def python_test_names():
    """The names of the tests that are written in Python."""
    scripts = (script for folder in SOURCES for script in (ROOT / folder).glob("*/test_*.py"))
    return {name for script in scripts for name in re.findall(r"(?m)^ +(?:async )?def (test_\w+)", script.read_text(encoding="utf-8"))}
