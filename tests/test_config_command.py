"""`python -m fastreid_cc config`: every key with default and text, the shipped configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastreid_cc import __main__ as cli
from fastreid_cc.config.signatures import argument_lines


def run(capsys, *words):
    status = cli.main(["config", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_every_key_has_a_text_and_its_default(capsys):
    from fastreid.config import get_cfg

    from fastreid_cc.config import get_key

    status, out, _ = run(capsys, "--json")
    keys = json.loads(out)["keys"]
    assert status == 0 and len(keys) > 150
    cfg = get_cfg()
    for entry in keys:
        default = get_key(cfg, entry["key"])
        assert entry["default"] == (list(default) if isinstance(default, tuple) else default)
        assert entry["help"] and (entry["range"] or type(default) not in (int, float))


def test_fastreids_keys_come_with_its_comments(capsys):
    from fastreid.config import get_cfg

    status, out, _ = run(capsys, "--stock", "--json")
    keys = {entry["key"]: entry for entry in json.loads(out)["keys"]}
    assert status == 0
    assert keys["SOLVER.BASE_LR"]["default"] == get_cfg().SOLVER.BASE_LR
    assert "image normalization" in keys["MODEL.PIXEL_MEAN"]["help"]
    assert "CC.SEED" in keys


def test_words_filter_and_few_keys_are_shown_in_full(capsys):
    status, out, _ = run(capsys, "dbscan", "EPS")
    assert status == 0
    assert out.splitlines()[0] == "CC.CLUSTER.DBSCAN.AUTO_RHO  0.0  [0, 1)"
    assert "CC.CLUSTER.DBSCAN.EPS  0.6  (0, 1]\n    Radius of a neighbourhood.\n" in out
    many = run(capsys, "memory")[1].splitlines()
    assert len(many) > 8 and all(line.startswith(("CC.", "MODEL.")) for line in many)


def test_no_match_names_near_keys(capsys):
    for word, near in (
        ("tempereture", "TEMPERATURE"),
        ("dbscn", "Near it: CC.CLUSTER.DBSCAN, "),
        ("CC.MEMRY.NAME", "Near it: CC.MEMORY.NAME"),
    ):
        status, out, err = run(capsys, word)
        assert status == 1 and out == ""
        assert near in err
    assert "Near it: CC.CLUSTER.DBSCAN, " in run(capsys, "--stock", "dbscn")[2]
    assert "no key holds 'dbscn'." in run(capsys, "eps", "dbscn")[2]


def test_a_key_that_names_parts_lists_them(capsys):
    out = run(capsys, "memory", "name")[1]
    names = "bidirectional | camera_proxy | classifier | cluster | hybrid | instance"
    assert f"CC.MEMORY.NAME  'cluster'  {names}" in out
    out = run(capsys, "MODEL.LOSSES.NAME")[1]
    assert "CrossEntropyLoss" in out and "MemoryContrast" in out


def test_keys_of_fastreid_that_take_names_list_them(capsys):
    assert "\n    (no text)" not in run(capsys, "--stock", "SOLVER.BASE_LR")[1]
    out = run(capsys, "--stock", "BACKBONE.NAME")[1]
    assert "build_resnet_backbone" in out and "build_osnet_backbone" in out
    out = run(capsys, "CC.SOURCES.NAMES")[1]
    assert "Market1501" in out and "UnlabeledFolder" in out


def test_files_are_filtered_by_words(capsys):
    names = [line.split()[0] for line in run(capsys, "--files", "Market", "spcl")[1].splitlines()]
    assert "Market1501/spcl_R50" in names
    assert run(capsys, "--files", "nosuchword")[0] == 1


def test_the_shipped_configs_are_listed_and_found(capsys):
    status, out, _ = run(capsys, "--path")
    folder = Path(out.strip())
    assert status == 0 and (folder / "quick" / "usl_tiny.yml").is_file()
    files = json.loads(run(capsys, "--files", "--json")[1])["files"]
    names = {entry["name"]: entry["line"] for entry in files}
    assert "tiny generated data set" in names["quick/usl_tiny"]
    assert len(names) == len(list(folder.rglob("*.yml")))
    states = {entry["name"]: entry["tested"] for entry in files}
    assert states["OwnImages/cc_osnet_x0_25"] == "own images"
    assert states["Base-USL"] == "base"
    line = next(li for li in run(capsys, "--files", "cc_v3")[1].splitlines() if "Market" in li)
    assert line.split()[:2] == ["Market1501/cc_v3_R50", "values"]


class Base:
    """Does things.

    Args:
        a: first
            of two.
        b: second.
    """


class Heir(Base):
    """Does more.

    Args:
        b: its own.

    Cost: nothing. c: no argument.
    """


@pytest.mark.parametrize(
    ("cls", "lines"),
    [
        (Base, {"a": "first of two.", "b": "second."}),
        (Heir, {"a": "first of two.", "b": "its own."}),
    ],
)
def test_argument_lines_follow_the_bases(cls, lines):
    assert {k: v for k, v in argument_lines(cls).items() if k in "abc"} == lines
