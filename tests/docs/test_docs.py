#!/usr/bin/env python3
"""The pages say what is so: their commands work, their links lead somewhere, and the tests they name are there.

The commands of each page are run as a newcomer would, one after another in one shell, in an empty folder, with the
binary that is already built and a server on free ports. What takes long or belongs to the checkout (make, cargo,
scripts) is not run: it is checked that what it names is there. What is neither fails the test. Standard library only.
"""

import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # nothing stays in the tree

import checks
from checks import ROOT, Wrong, check
from pages import Command, Page, logical_lines, simple_commands, words_of

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
BINARY = TARGET / "release" / "mainstem"
SCRATCH = ROOT / "target" / "docs"
# Programs that a page may run as they are.
LIGHT = {"mainstem", "printf", "echo", "cat", "cd", "export", "$EDITOR"}
RUN_TIMEOUT_S = 900  # the first build of a handler fetches and builds what it depends on


def pages():
    """The pages whose commands are tried."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def all_markdown():
    """Every page of the tree."""
    for path, folders, files in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if name not in {"target", ".git"})
        yield from (Path(path, name) for name in sorted(files) if name.endswith(".md"))


def with_parent():
    """Runs in a child: it dies with the test, however that ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Shell:
    """A newcomer's terminal: it stays in its folder and keeps its variables from one command to the next."""

    def __init__(self, folder):
        self.keep = folder / ".shell"
        self.keep.mkdir(parents=True)
        self.home = folder / "work"
        self.home.mkdir()
        binaries = folder / "bin"
        binaries.mkdir()
        (binaries / "mainstem").symlink_to(BINARY)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("MAINSTEM_")}
        self.environment |= {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "EDITOR": "true",
            "MAINSTEM_LISTEN_GRPC": "127.0.0.1:0",
            "MAINSTEM_LISTEN_HTTP": "127.0.0.1:0",
            "MAINSTEM_LISTEN_KAFKA": "127.0.0.1:0",
            # So that what handlers depend on is built once.
            "CARGO_TARGET_DIR": str(ROOT / "target" / "guests"),
        }
        self.server = None
        self.run("true")

    def script(self, text):
        restore = f'. {self.keep}/variables; cd "$(cat {self.keep}/folder)"\n' if (self.keep / "folder").exists() else ""
        return restore + text

    def run(self, text):
        """One line; its output. Raises `Wrong` when it fails."""
        keep = f"\ncode=$?; pwd > {self.keep}/folder; export -p > {self.keep}/variables; exit $code"
        done = subprocess.run(
            ["sh", "-c", self.script(text) + keep], cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=RUN_TIMEOUT_S, preexec_fn=with_parent,
        )
        check(done.returncode == 0, f"it ends with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def serve(self, text="mainstem serve --data-dir data"):
        """A server, in a terminal of its own; commands of this one find it."""
        check(self.server is None, "a server is running already")
        with open(self.keep / "server.log", "wb") as log:
            self.server = subprocess.Popen(
                ["sh", "-c", self.script(f"exec {text.rstrip(' &')}")], cwd=self.home, env=self.environment,
                stdout=subprocess.PIPE, stderr=log, preexec_fn=with_parent,
            )
        line = self.server.stdout.readline().decode()
        log = self.keep / "server.log"
        check(line.startswith("ready "), f"the server did not become ready but said {line!r}\n{log.read_text()}")
        self.run(f"export MAINSTEM_SERVER={json.loads(line[len('ready '):])['grpc']}")

    def end(self):
        """Stops the server; it must stop cleanly."""
        if self.server is None:
            return
        self.server.terminate()
        try:
            self.server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
            raise Wrong("the server did not stop within 60 s of SIGTERM") from None
        finally:
            self.server.stdout.close()
            code, self.server = self.server.returncode, None
        check(code == 0, f"the server stopped with exit code {code}")


def mentioned(shell, words):
    """A command of ours in the middle of a sentence: it exists, and has the options that are named."""
    path = [word for word in words[1:] if re.fullmatch(r"[a-z][a-z-]*", word)]
    page = shell.run(f"mainstem {' '.join(path)} --help")
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        check(re.search(rf"{option}\b", page), f"`mainstem {' '.join(path)}` has no {option}")


def do(shell, text, inline=False):
    """Runs or checks one line of a page."""
    programs = simple_commands(text)
    check(programs, "this is no command")
    kinds = {checks.is_heavy(words) for words in programs}
    check(len(kinds) == 1, "a line is either run or only checked: write it as two")
    if kinds == {True}:
        for words in programs:
            checks.heavy(words)
        return
    for words in programs:
        check(words[0] in LIGHT, f"{words[0]} is not known to this test: teach it, or the page another way")
    ours = [words for words in programs if words[0] == "mainstem"]
    if inline:
        for words in ours:
            mentioned(shell, words)
        return
    if any(words[1:2] == ["serve"] for words in ours):
        check(len(programs) == 1, "a server stands on a line of its own")
        shell.serve(text)
        return
    if any(words[1:2] == ["check"] for words in ours):
        # It looks at a directory that no server has; the page says to stop it.
        shell.end()
    elif ours and shell.server is None and not any("--help" in words for words in ours):
        shell.serve()
    shown = shell.run(text)
    # A page does not ask for what is not there.
    check("(0 rows)" not in shown, f"it shows nothing:\n{shown}")
    if ours and ours[-1][1:2] == ["consume"]:
        check(len(shown.splitlines()) > 1, f"it shows no record:\n{shown}")


class Case(unittest.TestCase):
    """What runs in a scratch folder."""

    @classmethod
    def setUpClass(cls):
        check(BINARY.is_file(), f"{BINARY} is not there: cargo build --release --bin mainstem")
        SCRATCH.mkdir(parents=True, exist_ok=True)
        cls.lock = open(SCRATCH / "lock", "w")
        fcntl.flock(cls.lock, fcntl.LOCK_EX)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(SCRATCH)
        cls.lock.close()

    def shell(self):
        # The same folder each time: what cargo keeps of a project hangs on its path.
        folder = SCRATCH / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        shell = Shell(folder)
        self.addCleanup(shutil.rmtree, folder)
        self.addCleanup(shell.end)
        return shell

    def do_all(self, shell, place, commands):
        for command in commands:
            try:
                do(shell, command.text, command.inline)
            except Wrong as wrong:
                self.fail(f"{place}:{command.line}: `{command.text}`: {wrong}")


class Commands(Case):
    """One test for each page is added below."""

    def test_the_readme_is_read_to_its_end(self):
        commands = [words for command in Page(ROOT / "README.md").commands() for words in simple_commands(command.text)]
        for wanted in (["make", "demo"], ["mainstem", "serve"], ["mainstem", "produce"], ["mainstem", "sql"]):
            self.assertTrue(any(words[:2] == wanted for words in commands), wanted)
        for wanted in ("new", "build", "deploy", "wait"):
            self.assertTrue(any(words[:3] == ["mainstem", "handler", wanted] for words in commands), wanted)

    def test_the_ten_lines_of_the_help(self):
        shell = self.shell()
        lines = shell.run("mainstem --help").partition("to start with:\n")[2].partition("\n\n")[0].splitlines()
        self.assertGreater(len(lines), 5)
        self.do_all(shell, "mainstem --help", logical_lines(0, [line.strip() for line in lines]))

    def test_the_data_directory_is_as_the_formats_say(self):
        shell = self.shell()
        shell.serve()
        shell.run("mainstem topic create orders && echo 1 | mainstem produce orders")
        described = {code.partition("/")[0] for _, code in Page(ROOT / "docs/formats.md").code()}
        self.assertEqual({path.name for path in (shell.home / "data").iterdir()} - described, set())

    def test_the_page_of_a_new_handler(self):
        shell = self.shell()
        shell.run("mainstem handler new clicks && cd clicks")
        page = Page(shell.home / "clicks" / "README.md")
        self.assertGreater(len(page.commands()), 5)
        self.do_all(shell, "clicks/README.md", page.commands())


def commands_of(path):
    def test(self):
        self.do_all(self.shell(), path.relative_to(ROOT), Page(path).commands())

    return test


for page_path in pages():
    name = re.sub(r"\W", "_", str(page_path.relative_to(ROOT).with_suffix("")).lower())
    setattr(Commands, f"test_commands_of_{name}", commands_of(page_path))


class Words(unittest.TestCase):
    """What pages say beside their commands."""

    def test_every_block_names_its_language(self):
        for path in all_markdown():
            for line, language, _ in Page(path).blocks:
                # What stands in `python` is run by tests/clients.
                known = {"sh", "text", "rust", "toml", "json", "sql", "python"}
                self.assertIn(language, known, f"{path.relative_to(ROOT)}:{line}: commands stand in ```sh, the rest says what it is")

    def test_links_lead_somewhere(self):
        for path in all_markdown():
            for line, link in Page(path).links():
                if re.match(r"[a-z]+:", link):
                    continue
                place = f"{path.relative_to(ROOT)}:{line}: {link}"
                file, _, heading = link.partition("#")
                target = (path.parent / file).resolve() if file else path
                self.assertTrue(target.exists(), place)
                self.assertIn(ROOT, [target, *target.parents], f"{place} leaves the tree")
                if heading:
                    self.assertIn(heading, Page(target).anchors(), place)

    def test_paths_of_the_tree_are_there(self):
        for path in all_markdown():
            for line, code in Page(path).code():
                if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", code):
                    continue
                bases = [base for base in (ROOT, ROOT / "crates") if (base / code.split("/")[0]).is_dir() and code.split("/")[0] != "target"]
                there = not bases or any((base / code).exists() for base in bases)
                self.assertTrue(there, f"{path.relative_to(ROOT)}:{line}: there is no {code}")

    def test_tests_named_by_the_guarantees_are_there(self):
        tests = checks.test_names(ROOT) | checks.python_test_names()
        faults = set(re.findall(r'= "(\w+)";', (ROOT / "crates/journal/src/mutation.rs").read_text()))
        named = [(line, code) for line, code in Page(ROOT / "docs/guarantees.md").code() if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", code)]
        self.assertGreater(len(named), 20)
        for line, name in named:
            self.assertIn(name, tests | faults, f"docs/guarantees.md:{line}")
        self.assertEqual(faults - {name for _, name in named}, set(), "faults that docs/guarantees.md does not name")


class TheChecks(unittest.TestCase):
    """That this test can fail."""

    def assert_wrong(self, text, why):
        with self.assertRaisesRegex(Wrong, why):
            do(None, text)

    def test_what_is_not_there_is_found(self):
        for text, why in [
            ("frobnicate --all", "not known"),
            ("make dmeo", "no target"),
            ("make docs", "no target"),
            ("make guarantees KILL=3", "does not use KILL"),
            ("cargo build --bin mainsteam", "no bin mainsteam"),
            ("cargo test -p mainstem-lgo", "no package"),
            ("cargo test -p mainstem-engine --test crash", "no test crash"),
            ("cargo test -p mainstem-engine no_test_has_this_name", "no test of"),
            ("cargo bench -p mainstem-engine --bench produce", "no bench"),
            ("cargo run -p mainstem-guarantees -- --memroy", "knows no --memroy"),
            ("cargo tset", "not known"),
            ("MAINSTEM_SEEED=1 cargo test", "nothing reads"),
            (".ci/runn", "there is no"),
            ("python3 examples/flight/demo.py", "there is no"),
            ("make test && mainstem status", "write it as two"),
        ]:
            self.assert_wrong(text, why)

    def test_what_is_there_passes(self):
        for text in ["make demo && make test", "MAINSTEM_SEED=1 cargo test --release -p mainstem-log --test model", ".ci/run"]:
            do(None, text)

    def test_lines_are_cut_as_the_shell_does(self):
        block = ["# a comment", "a 'b", "c' \\", "  | d   # e", "", "f && g; h"]
        commands = logical_lines(10, block)
        self.assertEqual([command.line for command in commands], [12, 16])
        self.assertEqual([simple_commands(command.text) for command in commands], [[["a", "b\nc"], ["d"]], [["f"], ["g"], ["h"]]])
        self.assertEqual(commands[1], Command(16, "f && g; h", inline=False))
        self.assertIsNone(words_of("open '"))


if __name__ == "__main__":
    unittest.main()
