"""Reads a page of Markdown as far as the tests need it: commands, links, headings, names in backticks."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\S*)\s*$")
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*?)\s*$")
# What stands in backticks in the text and begins with one of these is a command, once it has a second word.
PROGRAMS = {"make", "cargo", "mainstem", "python3", ".ci/run", ".ci/test"}


@dataclass
class Command:
    """One line for the shell, continuations joined."""

    line: int
    text: str
    inline: bool


class Page:
    """One page: its lines, told apart into text and fenced blocks."""

    def __init__(self, path: Path):
        self.path = path
        self.text = []  # (line number, line) outside of fences
        self.blocks = []  # (line number of the fence, language, lines)
        block = None
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            fence = FENCE.match(line.strip())
            if block is not None and fence:
                self.blocks.append(block)
                block = None
            elif block is not None:
                block[2].append(line)
            elif fence:
                block = (number, fence.group(1), [])
            else:
                self.text.append((number, line))
        if block is not None:
            raise ValueError(f"{path}:{block[0]}: this block has no end")

    def commands(self):
        """The commands of the `sh` blocks and of the text, in the order of the page."""
        found = []
        for number, language, lines in self.blocks:
            if language == "sh":
                found += logical_lines(number, lines)
        for number, code in self.code():
            words = code.split()
            if words[0] in PROGRAMS and len(words) > 1:
                found.append(Command(number, code, inline=True))
        return sorted(found, key=lambda command: command.line)

    def code(self):
        """What stands in backticks, with its line."""
        return [(number, code) for number, line in self.text for code in CODE.findall(line) if code.strip()]

    def links(self):
        """The targets of the links, with their lines."""
        return [(number, target) for number, line in self.text for target in LINK.findall(line)]

    def anchors(self):
        """What a link to a heading of this page may say after `#`."""
        headings = (HEADING.match(line) for _, line in self.text)
        return {anchor(heading.group(1)) for heading in headings if heading}


def anchor(heading):
    """A heading's name in links, as GitHub makes it."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


def logical_lines(fence, lines):
    """The commands of a block: a line goes on behind a backslash and inside quotes."""
    commands, begun, text = [], 0, ""
    for number, line in enumerate(lines, fence + 1):
        if not text:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            begun = number
        text += line + "\n"
        if not line.endswith("\\") and words_of(text) is not None:
            commands.append(Command(begun, text.strip(), inline=False))
            text = ""
    if text:
        commands.append(Command(begun, text.strip(), inline=False))
    return commands


def words_of(text):
    """The words of a command as the shell cuts them, without its comment; None while a quote is open."""
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:
        return None


def simple_commands(text):
    """The single programs of a line: its words, cut at `|`, `&&`, `||`, `;` and `&`."""
    parts = [[]]
    for word in words_of(text) or []:
        if word in {"|", "&&", "||", ";", "&"}:
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]
