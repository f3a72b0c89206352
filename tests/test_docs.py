"""What the docs name exists: files and headings linked, configs, keys, commands.

tests/contracts/test_examples.py runs the examples of README.md and docs/adding-a-part.md.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import doc_tables
import pytest
import yaml

from fastreid_cc.__main__ import commands, split
from fastreid_cc.config import all_keys
from fastreid_cc.config.shipped import TESTED, find_config, how_tested
from fastreid_cc.registry import Registry

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
IDS = [page.name for page in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
KEY = re.compile(r"\b(?:CC|MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST)(?:\.[A-Za-z0-9_]+)+\b")
#: Keys of parts that the docs bring in themselves.
OLD = {"MODEL.LOSSES.ADASP", "MODEL.HEADS.CLS_ENABLE"}  # translated: plugin/old_keys.py
EXAMPLES = {
    "CC.MEMORY.FROZEN.TEMPERATURE",
    "CC.MEMORY.DRIFTING.MOMENTUM",
    "CC.CLUSTER.COMPLETE.EPS",
    "CC.REFINE.TWO_CAMERAS.LEAST",
    "CC.DISTANCE.ANGLE.K1",
    "MODEL.LOSSES.Alignment.SCALE",
}


def anchors(page: Path) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text("utf-8"))
    found = set()
    for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return found


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Code blocks of some languages."""
    for language, body in FENCE.findall(page.read_text("utf-8")):
        if language in languages:
            yield body


def command_lines(page: Path) -> Iterator[list[str]]:
    """Words after `python -m fastreid_cc` of every command, in blocks and in the text."""
    text = page.read_text("utf-8")
    shell = "".join(blocks(page, "bash", "")).replace("\\\n", " ")
    inline = re.findall(r"`(python -m fastreid_cc[^`]+)`", FENCE.sub("", text))
    for line in [*shell.splitlines(), *(" ".join(part.split()) for part in inline)]:
        if line.strip().startswith("python -m fastreid_cc"):
            yield shlex.split(line, comments=True)[3:]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists() and file.is_relative_to(ROOT), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: no heading {target}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_files_of_this_repository_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    named = re.findall(r"\b((?:configs|tests|docs|projects|benchmarks)/[\w./*-]+\.\w+)", text)
    named += re.findall(r"\bfastreid_cc://([\w./-]+\.yml)", text)
    for name in named:
        found = list(ROOT.glob(name)) or list((ROOT / "configs").glob(name))
        assert found, f"{page.name} names {name}"


def unnamed(key: str) -> str:
    """A key of a source's folder, whatever the folder is called, as the key of CC.FOLDER."""
    return re.sub(r"^CC\.SOURCES\.FOLDERS\.\w+", "CC.FOLDER", key)


def known_keys() -> set[str]:
    """Every config key, fastreid's own too."""
    importlib.import_module("fastreid_cc.plugin")
    from fastreid.config import get_cfg

    def walk(node: object, prefix: str) -> Iterator[str]:
        for key, value in node.items():  # type: ignore[attr-defined]
            yield f"{prefix}{key}"
            if hasattr(value, "items"):
                yield from walk(value, f"{prefix}{key}.")

    return set(walk(get_cfg(), ""))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_config_keys_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    named = {unnamed(key) for key in KEY.findall(text) if not key.endswith(".py")}
    assert named - known_keys() - EXAMPLES - OLD == set()


def rows_of(page: Path, title: str) -> Iterator[list[str]]:
    """[what the title's group holds, *cells] of each row of the tables whose title matches."""
    node = None
    for line in page.read_text("utf-8").splitlines():
        if not line.startswith("|"):
            node = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        match = re.fullmatch(title, cells[0])
        if match:
            node = match[1]
        elif node and not set(cells[0]) <= set("-: "):
            yield [node, *cells]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_a_table_of_the_keys_of_a_node_holds_keys_of_it_and_the_page_holds_all(page: Path) -> None:
    nodes = set()
    for node, names, *_ in rows_of(page, r"key of `([A-Z.]+)`"):
        nodes.add(node)
        assert {f"{node}.{name}" for name in re.findall(r"`(\w+)`", names)} <= set(all_keys()), (
            names
        )
    for node in nodes:
        for key in all_keys():
            if key.startswith(f"{node}."):
                name = key.removeprefix(f"{node}.")
                assert re.search(rf"\b{name}\b", page.read_text("utf-8")), f"{page.name}: {key}"


def test_defaults_in_tables_are_the_keys_defaults() -> None:
    stated = [
        (page.name, key, default)
        for page in PAGES
        for key, default in re.findall(r"^\| `([\w.]+)` (\S+) \|", page.read_text("utf-8"), re.M)
        if key in all_keys()
    ]
    assert len(stated) >= 5
    assert [row for row in stated if str(all_keys()[row[1]].default) != row[2]] == []


def configs_of(cell: str) -> set[Path]:
    """Files that a cell of README's table names: globs, {a,b}, folders, names beside the last."""
    found: set[Path] = set()
    folder = ""
    for token in re.findall(r"`([^`]+)`", cell):
        path = token if token.startswith("configs/") else f"{folder}/{token}"
        folder, _, name = path.rpartition("/")
        choices = re.fullmatch(r"(.*)\{(.*)\}(.*)", name or "*.yml")
        names = [name or "*.yml"]
        if choices:
            names = [f"{choices[1]}{word}{choices[3]}" for word in choices[2].split(",")]
        for each in names:
            files = set(ROOT.glob(f"{folder}/{each}"))
            assert files, f"README.md names {folder}/{each}"
            found |= files
    return found


def test_the_readmes_table_says_how_far_configs_were_tested() -> None:
    rows = rows_of(ROOT / "README.md", "(method)")
    states = {cells[3]: cells[4] for cells in ([None, *row[1:]] for row in rows)}
    assert len(states) >= 15
    named: set[Path] = set()
    for cell, state in states.items():
        files = configs_of(re.sub(r"\[[^]]*\]\([^)]*\)", "", cell))
        said = {word for word in re.findall(r"`([^`]+)`", state) if word in TESTED}
        assert said == {how_tested(str(file)) for file in files}, cell
        named |= files
    papers = {p for p in (ROOT / "configs").glob("[A-Z]*/**/*.yml") if "Base-" not in p.name}
    assert papers - named - set(ROOT.glob("configs/**/*mdif*.yml")) == set()


def test_the_table_of_the_parts_lists_every_choice() -> None:
    listed = 0
    for line in (ROOT / "docs" / "methods.md").read_text("utf-8").splitlines():
        match = re.fullmatch(r"\| [\w ]+ \| `(CC[\w.]+)` \| (.*) \|", line)
        if match and isinstance(all_keys()[match[1]].limits, (tuple, Registry)):
            listed += 1
            choices = set(all_keys()[match[1]].range.split(" | "))
            assert choices == set(re.findall(r"`(\w+)`", match[2])), match[1]
    assert listed >= 6


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_yaml_blocks_hold_keys_that_exist(page: Path) -> None:
    def walk(node: object, prefix: str = "") -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                yield f"{prefix}{key}"
                yield from walk(value, f"{prefix}{key}.")

    for body in blocks(page, "yaml"):
        assert {*map(unnamed, walk(yaml.safe_load(body)))} - known_keys() - {"_BASE_"} == set()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in command_lines(page):
        if not words or "…" in words or words == ["--version"]:
            continue
        _, word, rest = split(words)
        if word.endswith(".py") or (word == "train" and rest[:1] and rest[0].endswith(".py")):
            _check_script(rest if word != "train" else rest[1:], page)
            continue
        if word == "train" and rest:
            _check_script(rest, page)
        if word == "help":
            continue
        assert word in commands(), f"{page.name}: {words}"
        if not rest:  # the name alone, in a sentence
            continue
        module = importlib.import_module(f"fastreid_cc.commands.{word.replace('-', '_')}")
        try:
            module.parser().parse_args(rest)
        except SystemExit as ended:
            pytest.fail(f"{page.name}: {words}: {capsys.readouterr().err}", pytrace=bool(ended))


def _check_script(words: list[str], page: Path) -> None:
    """A stock script's arguments: options of fastreid's parser, then KEY VALUE pairs."""
    importlib.import_module("fastreid_cc.plugin")
    from fastreid.config import get_cfg
    from fastreid.engine import default_argument_parser

    args = default_argument_parser().parse_args(words)
    assert len(args.opts) % 2 == 0, f"{page.name}: {words}"
    pairs = [p for p in zip(args.opts[::2], args.opts[1::2], strict=True) if p[0] not in EXAMPLES]
    if args.config_file not in ("CONFIG.yml", "my.yml", "logs/a/config.yaml", ""):
        find_config(args.config_file)
    cfg = get_cfg()
    cfg.merge_from_list([part for pair in pairs for part in pair])


def test_the_pages_hold_commands_to_check() -> None:
    assert sum(len(list(command_lines(page))) for page in PAGES) >= 15


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_blocks_are_python(page: Path) -> None:
    for body in blocks(page, "python"):
        ast.parse(body)


def test_every_page_of_docs_is_linked_from_somewhere() -> None:
    linked = set()
    for page in PAGES:
        targets = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
        linked |= {(page.parent / t).resolve() for t in targets if ":" not in t}
    assert {page for page in PAGES if page.parent == ROOT / "docs"} - linked == set()


def test_tables_as_csv_hold_what_the_pages_say() -> None:
    wanted = doc_tables.wanted()
    assert len(wanted) >= 3 and set(wanted) == set((ROOT / "docs" / "figures").iterdir())
    for path, text in wanted.items():
        assert path.read_text("utf-8") == text, "run: python tests/doc_tables.py"
