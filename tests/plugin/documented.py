"""The commands and the Python of README.md and docs/*.md, as a reader would type them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SHELL = ("bash", "sh", "shell", "console")
#: A line that begins so is a command, whatever its block is called.
TYPED = re.compile(
    r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:python3?|pip|make|git|torchrun|tensorboard) ", re.M
)


@dataclass(frozen=True)
class Command:
    """One command: `words` without comments, `env` what stands before it, as NAME=value."""

    page: str
    line: int
    words: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}:{' '.join(self.words)[:60]}"

    @property
    def after(self) -> tuple[str, ...]:
        """The words of `python -m fastreid_cc`; () of another program."""
        here = self.words
        if here[0] == "torchrun":
            here = ("python", *here[here.index("-m") :]) if "-m" in here else here
        return here[3:] if here[:3] == ("python", "-m", "fastreid_cc") else ()

    @property
    def name(self) -> str:
        """The command of fastreid_cc, after `--import MODULE`."""
        words = list(self.after)
        while words and words[0] == "--import":
            words = words[2:]
        return words[0] if words else ""

    def value(self, option: str) -> str:
        """What follows a word; "" where it does not stand."""
        at = self.words.index(option) + 1 if option in self.words else len(self.words)
        return self.words[at] if at < len(self.words) else ""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks, without the indent of a list they stand in."""
    text, name = page.read_text("utf-8"), page.name
    found = []
    for match in FENCE.finditer(text):
        body = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        found.append(Block(name, text[: match.start()].count("\n") + 2, match[2], body))
    return found


def file_of(block: Block) -> str:
    """The file that a block says it is, by its first line."""
    first = block.text.split("\n", 1)[0]
    is_file = block.language == "python" and first.startswith("# ") and first.endswith(".py")
    return first[2:] if is_file else ""


def split(text: str) -> list[tuple[list[str], int]]:
    """(words, line from 0) of each simple command of a block: continued lines, &&, |, comments."""
    found, whole, begun = [], "", 0
    for number, line in enumerate(text.splitlines()):
        begun = begun if whole else number
        whole += re.sub(r"^\$ ", "", line)
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        lexer = shlex.shlex(whole, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set("&|;"):
                found += [(words, begun)] if words else []
                words = []
            else:
                words.append(token)
        whole = ""
    return found


def commands(page: Path) -> list[Command]:
    """Every command of the shell blocks of a page, in order."""
    made = []
    for block in blocks(page):
        if block.language not in SHELL:
            continue
        for words, line in split(block.text):
            env = {}
            while words and re.match(r"[A-Z_]+=", words[0]):
                name, _, env[name] = words.pop(0).partition("=")
            if words:
                made.append(Command(block.page, block.line + line, tuple(words), env))
    return made


def unmarked(page: Path) -> list[str]:
    """Blocks that hold commands and are not marked as shell, and indented commands outside any."""
    text = page.read_text("utf-8")
    found = [str(b) for b in blocks(page) if b.language == "" and TYPED.search(b.text)]
    indented = re.compile(TYPED.pattern.replace(r"^\s*", r"^(?: {4,}|\t)", 1), re.M)
    return found + [m[0] for m in indented.finditer(FENCE.sub("", text))]
