"""`python -m fastreid_cc COMMAND`: one style of help, exit statuses, JSON; without fastreid."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import pytest

from fastreid_cc import __main__ as cli
from fastreid_cc.commands import _frame
from fastreid_cc.errors import printable


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Makes a command called `trial` of the given body."""
    import fastreid_cc.commands

    monkeypatch.setattr(fastreid_cc.commands, "__path__", [str(tmp_path)])
    monkeypatch.setattr(cli, "COMMANDS", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def make(body: str) -> None:
        head = '"""tries things"""\nfrom fastreid_cc.errors import *\ndef main(argv):\n'
        (tmp_path / "trial.py").write_text(head + body)

    yield make
    sys.modules.pop("fastreid_cc.commands.trial", None)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("    return None\n", 0, ""),
        ("    raise ClearError('disk is full')\n", 1, "trial: disk is full\n"),
        ("    raise WrongUse('no such run')\n", 2, "trial: no such run\n"),
        ("    raise KeyboardInterrupt\n", 130, "trial: interrupted\n"),
        ("    raise MemoryError('4 GiB')\n", 1, "trial: out of memory 4 GiB\n"),
        ("    open('/nowhere/x\\x1b')\n", 1, r"No such file or directory: '/nowhere/x\x1b'"),
        ("    import cv2\n", 1, "pip install opencv-python-headless"),
    ],
)
def test_exit_status_and_one_message(command, capsys, monkeypatch, body, status, told):
    monkeypatch.setitem(sys.modules, "cv2", None)
    command(body)
    assert cli.main(["trial"]) == status
    captured = capsys.readouterr()
    assert told in captured.err and captured.out == ""


def test_what_we_do_not_know_stays_a_traceback(command):
    command("    return {}['gone']\n")
    with pytest.raises(KeyError, match="gone"):
        cli.main(["trial"])


def test_every_command_has_the_same_help(capsys):
    for name, line in cli.commands().items():
        assert line and len(line) < 62, f"{name}: longer than a line of 80 characters"
        with pytest.raises(SystemExit) as end:
            cli.main([name, "--help"])
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: python -m fastreid_cc {name}"), name


@pytest.mark.parametrize("name", cli.commands())
def test_every_option_says_what_it_does_and_its_default(name):
    parser = importlib.import_module(f"fastreid_cc.commands.{name.replace('-', '_')}").parser()
    shown = " ".join(parser.format_help().split())
    for action in parser._actions[1:]:
        assert len((action.help or "").split()) >= 3, action
        assert len((action.help or "").split()) <= 40 and ".py" not in action.help, action
        assert action.nargs == 0 or action.metavar or action.choices, f"{action}: say what goes in"
        if not action.option_strings or action.nargs == 0 or action.required:
            continue
        if action.default not in (None, "", []):
            assert f"(default: {action.default})" in shown or "default" in action.help, action
        else:
            assert "default" in action.help, action


def test_an_option_of_several_parts_says_what_it_does_in_the_default_ones():
    parser = importlib.import_module("fastreid_cc.commands.label").parser()
    texts = {action.dest: action.help for action in parser._actions}
    assert texts["k1"].startswith("neighbours per image, itself included")
    assert "k-means" not in texts["seed"] and texts["eps"].endswith("dbscan 0.6; hdbscan 0.7)")


def test_json_is_ascii_and_has_no_nan(capsys):
    _frame.print_json({"a": math.nan, "b": [math.inf, 1.5, "ü"], 3: {"c": None}})
    text = capsys.readouterr().out
    assert text.isascii()
    assert json.loads(text) == {"a": None, "b": [None, 1.5, "ü"], "3": {"c": None}}


def test_a_table_aligns_its_columns():
    assert _frame.table([("a", 1, "x y"), ("long", 22, ""), ()]) == "a     1   x y\nlong  22\n"


def test_names_are_shown_without_what_acts_on_a_terminal():
    assert printable("grün/0001_c1.jpg") == "grün/0001_c1.jpg"
    assert printable("a\x1b[2Jb\nc\u202ed\udcff") == r"a\x1b[2Jb\nc\u202ed\udcff"
    assert printable(Path("x\r")) == r"x\r"
