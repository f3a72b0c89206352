"""Some 1,200 bad inputs: each is refused with a clear message, or handled as stated; none hangs.

Configs, images, folders, feature files, checkpoints and command lines. A refusal is one of the
errors a user is meant to see, with a message that names the key or the file; anything else, and any
file written outside the folder for results, fails the test.
"""

from __future__ import annotations

import io
import os
import signal
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fastreid_cc import __main__ as cli
from fastreid_cc.config import REGISTRIES, all_keys, faults, get_key
from fastreid_cc.data.checks import fault
from fastreid_cc.data.folder import FolderItems, FolderOptions
from fastreid_cc.errors import ClearError, UnreadableFile
from fastreid_cc.registry import (
    CLUSTERERS,
    DISTANCES,
    GENERATORS,
    LOSSES,
    MEMORIES,
    NEIGHBORS,
    REFINERS,
)

pytestmark = pytest.mark.usefixtures("plugin")
HYPOTHESIS = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def within_seconds() -> Iterator[None]:
    """A hang ends after 60 seconds."""

    def stop(*_: Any) -> None:
        raise TimeoutError("this input hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with `in` and `out`; at the end nothing else is in it, and `in` is as it was."""
    for name in ("in", "out", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "in", "out"]
    assert list((tmp_path / "here").iterdir()) == []


# ---- configs ----------------------------------------------------------------------------------

CHOICE = {
    NEIGHBORS: "CC.NEIGHBORS.NAME",
    DISTANCES: "CC.DISTANCE.NAME",
    CLUSTERERS: "CC.CLUSTER.NAME",
    MEMORIES: "CC.MEMORY.NAME",
    REFINERS: "CC.REFINE.NAMES",
    LOSSES: "MODEL.LOSSES.NAME",
    GENERATORS: "CC.GENERATE.NAME",
}


def fresh() -> Any:
    from fastreid.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_list(
        [
            "CC.ENABLED",
            "True",
            "DATASETS.NAMES",
            "('UnlabeledFolder',)",
            "MODEL.LOSSES.NAME",
            "('MemoryContrast',)",
            "SOLVER.IMS_PER_BATCH",
            "64",
            "DATALOADER.NUM_INSTANCE",
            "16",
            "MODEL.META_ARCHITECTURE",
            "ClusterContrast",
        ]
    )
    return cfg


def choose(cfg: Any, key: str) -> None:
    """Chooses the part whose key it is, so that its constructor sees the value."""
    for registry in REGISTRIES:
        for name in registry.names():
            if key.startswith(f"{registry.node(name)}."):
                value: object = name if registry not in (REFINERS, LOSSES) else (name,)
                if registry is LOSSES:
                    value = ("MemoryContrast", name)
                cfg.merge_from_list([CHOICE[registry], value])
                if registry is DISTANCES:
                    cfg.merge_from_list(["CC.CLUSTER.NAME", "dbscan"])


def change(cfg: Any, key: str, value: float) -> None:
    node, leaf = key.rsplit(".", 1)
    get_key(cfg, node)[leaf] = value


def ours() -> list[tuple[str, Any]]:
    import fastreid_cc.plugin  # noqa: F401

    return [(name, key.default) for name, key in all_keys().items()]


def wrong_type(default: Any) -> str:
    return "[1, 2]" if not isinstance(default, (tuple, list)) else "7"


def test_a_value_of_another_type_names_its_key_for_every_key() -> None:
    keys = ours()
    assert len(keys) > 150
    cfg = fresh()
    for key, default in keys:
        with pytest.raises(ClearError, match=key.replace(".", r"\.")):
            cfg.merge_from_list([key, wrong_type(default)])


def test_a_number_that_is_none_is_a_fault_of_its_key_for_every_number() -> None:
    numbers = [(key, default) for key, default in ours() if type(default) is float]
    assert len(numbers) > 40
    for key, _ in numbers:
        cfg = fresh()
        choose(cfg, key)
        for value in (float("nan"), float("inf"), float("-inf")):
            change(cfg, key, value)
            assert any(key in fault for fault in faults(cfg)), f"{key}={value}: {faults(cfg)}"


def test_extreme_numbers_never_break_the_check_itself() -> None:
    for key, default in ours():
        if type(default) not in (int, float):
            continue
        cfg = fresh()
        choose(cfg, key)
        for value in (0, -1, 10**15, -(10**15)):
            change(cfg, key, type(default)(value))
            assert all(isinstance(fault, str) and fault for fault in faults(cfg))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("CC.MEMORY.NAME", "nonsense"), "CC.MEMORY.NAME='nonsense': no such memory"),
        (("CC.CLUSTER.NAME", "dbscam"), "Did you mean 'dbscan'"),
        (("CC.REFINE.NAMES", "('x',)"), "no such refiner"),
        (("MODEL.LOSSES.NAME", "('MemoryContrst',)"), "Did you mean 'MemoryContrast'"),
        (("MODEL.LOSSES.NAME", "()"), "holds no loss of this plug-in"),
        (("MODEL.LOSSES.NAME", "('CrossEntropyLoss','MemoryContrast')"), "needs a classifier"),
        (("DATALOADER.NUM_INSTANCE", "0"), "DATALOADER.NUM_INSTANCE"),
        (("SOLVER.IMS_PER_BATCH", "-16"), "SOLVER.IMS_PER_BATCH"),
        (("SOLVER.IMS_PER_BATCH", "17"), "must be a multiple"),
        (("SOLVER.IMS_PER_BATCH", "16"), "one cluster per batch"),
        (("CC.LABELS.PERIOD", "0"), "CC.LABELS.PERIOD=0"),
        (("CC.WARMUP.EPOCHS", "999"), "CC.WARMUP.EPOCHS=999"),
        (("CC.EXTRACT.BN", "none"), "CC.EXTRACT.BN='none' must be one of"),
        (("CC.COLLAPSE.EPS_BOUND", "1.5"), "CC.COLLAPSE.EPS_BOUND=1.5"),
        (("CC.EXTRACT.IMS_PER_BATCH", "0"), "CC.EXTRACT.IMS_PER_BATCH=0"),
        (("CC.SAMPLES_PER_BN", "1"), "CC.SAMPLES_PER_BN=1"),
        (("DATASETS.NAMES", "()"), "DATASETS.NAMES is empty"),
        (("MODEL.HEADS.NUM_CLASSES", "751"), "MODEL.HEADS.NUM_CLASSES=751"),
    ],
)
def test_a_wrong_choice_is_a_fault_with_its_key(pairs: tuple[str, str], message: str) -> None:
    cfg = fresh()
    cfg.merge_from_list(list(pairs))
    assert any(message in fault for fault in faults(cfg)), faults(cfg)


@settings(HYPOTHESIS, max_examples=60)
@given(
    text=st.one_of(
        st.text(max_size=60),
        st.text(alphabet="{}[]:,-&*!|>'\"#%@ \n\taCS1.", max_size=40),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(["CC", "SEED", "SOLVER", "_BASE_", "x", ""]), inner
                )
            ),
            max_leaves=8,
        ).map(repr),
    )
)
def test_any_text_is_a_config_or_a_clear_error(place: Path, text: str) -> None:
    from fastreid.config import CfgNode, get_cfg

    path = place / "in" / "x.yml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        if CfgNode.load_yaml_with_base(str(path)):
            get_cfg().merge_from_file(str(path))
    except ClearError as error:
        assert "in/" in str(error), str(error)


# ---- images -----------------------------------------------------------------------------------


def jpeg(size: tuple[int, int] = (16, 32), **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(stream, options.pop("format", "JPEG"), **options)
    return stream.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds one row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"IDAT", zlib.compress(b"\0" * 49))
        + chunk(b"IEND", b"")
    )


IMAGES = {
    "empty": b"",
    "text": b"hello",
    "zeros": b"\0" * 5000,
    "html": b"<html>404</html>",
    "torn": jpeg()[:200],
    "head only": jpeg()[:20],
    "no end": jpeg()[:-40],
    "torn png": jpeg(format="PNG")[:40],
    "bomb": png_of(60_000, 60_000),
    "wide": png_of(2**31 - 1, 1),
    "flat": png_of(0, 0),
    "gif": b"GIF89a",
    "bmp": b"BM" + b"\xff" * 60,
    "zip": b"PK\x03\x04",
    "pickle": b"\x80\x04\x95",
    "svg": b"<svg onload='x'/>",
    "webp": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
}


@pytest.mark.parametrize("name", IMAGES)
def test_bad_images_are_named_with_a_reason(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(IMAGES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        why = fault(str(path))
    assert why and len(why) < 200 and "\n" not in why


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dir.jpg").mkdir()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        assert fault(str(path)), path
    assert fault(str(tmp_path / ("x" * 300 + ".jpg")))


@settings(HYPOTHESIS, max_examples=60)
@given(data=st.binary(min_size=1, max_size=40), at=st.integers(0, 600), cut=st.integers(0, 600))
def test_damaged_images_are_faults_or_pictures(
    tmp_path: Path, data: bytes, at: int, cut: int
) -> None:
    whole = jpeg()
    path = tmp_path / f"{abs(hash((data, at, cut)))}.jpg"
    path.write_bytes((whole[:at] + data + whole[at + len(data) :])[: max(cut, 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        why = fault(str(path))
    assert why is None or 0 < len(why) < 200


# ---- folders ----------------------------------------------------------------------------------


@pytest.fixture
def folder(place: Path) -> Path:
    for name in ("a_c1_1.jpg", "a_c2_2.jpg", "b_c1_3.jpg", "sub/b_c2_4.jpg"):
        path = place / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg())
    return place / "in"


@pytest.mark.parametrize(
    "options",
    [
        {"root": ""},
        {"root": "nowhere"},
        {"root": "a_c1_1.jpg"},
        {"root": "\0"},
        {"root": "x" * 3000},
        {"root": "../in/nowhere"},
        {"include": "("},
        {"exclude": "*"},
        {"include": "nothing$"},
        {"exclude": "."},
        {"camera": "_c"},
        {"camera": "(_)(c)"},
        {"camera": "folder:x"},
        {"camera": "folder:9"},
        {"camera": "folder:"},
        {"camera": "k(\\d)"},
        {"camera": "_c(\\d)", "camera_sectors": (2, 4)},
        {"camera_sectors": (4,)},
        {"camera": "^(.)", "camera_sectors": (72, 4)},
        {"identity": "(?P<camera>x)"},
        {"identity": "zzz(.)"},
        {"query": "sub"},
        {"gallery": "sub"},
        {"query": "nowhere", "gallery": "sub", "identity": "^(.)"},
        {"test_include": "["},
        {"test_include": "."},
        {"test_include": "^b"},
        {"test_include": "^b", "identity": "(zz)"},
        {"query_cameras": ("1",)},
        {"test_include": "_c2", "identity": "(\\w)_", "camera": "_c(\\d)", "query_cameras": ("9",)},
        {"max_bad_share": 1.5},
        {"max_bad_share": -1.0},
        {"max_bad_share": float("nan")},
    ],
    ids=str,
)
def test_folders_that_cannot_serve_name_the_key(folder: Path, options: dict[str, Any]) -> None:
    root = options.get("root", str(folder))
    with pytest.raises(ValueError, match=r"CC\.FOLDER\.|SECTORS|INCLUDE|CAMERA") as error:
        FolderItems(FolderOptions(**{**options, "root": root}), folder)
    assert len(str(error.value)) < 8000


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*)*x", "(?P<camera>.*)"])
def test_odd_rules_do_not_hang(folder: Path, pattern: str) -> None:
    FolderItems(
        FolderOptions(root=str(folder), camera=pattern if "(" in pattern else ""), folder
    ) if pattern.startswith("(?P") else None
    FolderOptions(root=str(folder), include=pattern)


def test_folders_that_contain_themselves_are_read_once(folder: Path) -> None:
    (folder / "sub" / "again").symlink_to(folder)
    (folder / "other").symlink_to(folder / "sub")
    assert len(FolderItems(FolderOptions(root=str(folder)), folder).train) == 4


# ---- feature files ----------------------------------------------------------------------------


def saved(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def header(shape: str, kind: str = "<f4") -> bytes:
    """An .npy file that claims a shape and holds 64 bytes."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + b"\0" * 64


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("../../up.npy", saved(np.eye(3)))
    return stream.getvalue()


GOOD = np.eye(20, 8, dtype=np.float32) + 0.1
NAN = GOOD.copy()
NAN[3, 2] = np.nan
FEATURES = {
    "empty": b"",
    "text": b"hello",
    "torn": saved(GOOD)[:100],
    "no columns": saved(GOOD[:, :0]),
    "one axis": saved(GOOD[0]),
    "three axes": saved(GOOD[None]),
    "whole numbers": saved(GOOD.astype(int)),
    "text array": saved(np.array(["a", "b"])),
    "complex": saved(GOOD.astype(complex)),
    "nan": saved(NAN),
    "inf": saved(NAN * np.inf),
    "one nought": saved(np.vstack([GOOD, GOOD[:1] * 0])),
    "all noughts": saved(GOOD * 0),
    "huge claim": header("(1000000000000, 2048)"),
    "negative": header("(-1, 8)"),
    "overflow": header("(9223372036854775807, 9223372036854775807)"),
    "code": header("__import__('os').mkdir('ran')"),
    "dates": header("(2, 4)", "<M8[s]"),
    "records": saved(np.zeros(3, dtype=[("a", "f4"), ("b", "O")]), allow_pickle=True),
    "archive": archive(),
    "version": b"\x93NUMPY\x09\x00" + b"\0" * 90,
    "long header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 50,
}


@pytest.mark.parametrize("name", FEATURES)
def test_bad_feature_files_are_one_line_and_status_2(place: Path, name: str, capsys) -> None:
    (place / "in" / "f.npy").write_bytes(FEATURES[name])
    target = place / "out" / "o.npz"
    status = cli.main(["label", str(place / "in" / "f.npy"), "--out", str(target), "--quiet"])
    told = capsys.readouterr().err
    assert status == 2 and told.startswith("label: ") and told.count("\n") == 1, (status, told)
    assert list((place / "out").iterdir()) == []


@pytest.mark.parametrize(
    "cameras",
    [
        np.zeros(3, int),
        np.zeros((20, 1), int),
        np.zeros(20),
        np.array(["a"] * 20),
        np.zeros(0, int),
    ],
    ids=str,
)
def test_cameras_that_do_not_fit_are_refused(place: Path, cameras: np.ndarray, capsys) -> None:
    np.save(place / "in" / "f.npy", GOOD)
    np.save(place / "in" / "c.npy", cameras)
    words = ["--cams", str(place / "in" / "c.npy"), "--distance", "ca_jaccard", "--quiet"]
    target = str(place / "out" / "o.npz")
    assert cli.main(["label", str(place / "in" / "f.npy"), "--out", target, *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---- checkpoints ------------------------------------------------------------------------------

PATHS = [f"/data/{i}.jpg" for i in range(6)]
LABELS = torch.tensor([0, 0, 1, 1, -1, 2])


def state(**changes: Any) -> dict[str, Any]:
    return {"version": 1, "labels": LABELS, "eps": 0.5, "labeler": {}, **changes}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        3,
        [],
        "cc",
        {},
        {"version": 2},
        {"labels": LABELS},
        state(version="1"),
        state(labels=[0, 1]),
        state(labels="0"),
        state(labels=LABELS.float()),
        state(labels=LABELS[None]),
        state(labels=LABELS.int()),
        state(labels=LABELS - 1),
        state(labels=LABELS * 2),
        state(labels=LABELS[:5]),
        state(labels=LABELS[:0]),
        state(labels=LABELS + 2**40),
        state(eps="x"),
        state(eps=[0.5]),
        state(images="0" * 16),
        state(images=3),
        state(labels=torch.tensor(1)),
    ],
    ids=str,
)
def test_entries_that_are_no_labels_are_refused(entry: Any) -> None:
    from fastreid_cc.plugin.trainer.checkpoint_state import labels_of

    assert labels_of(state(), PATHS).num_clusters == 3
    with pytest.raises(UnreadableFile, match=r"checkpoint"):
        labels_of(entry, PATHS)


CONTENTS = {
    "number": 3,
    "list": [1],
    "empty": {},
    "no model": {"epoch": 1},
    "model number": {"model": 3},
    "model list": {"model": [torch.zeros(1)]},
    "nothing": None,
    "tensor": torch.zeros(3),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_files_without_a_model_are_no_checkpoints(place: Path, name: str) -> None:
    from fastreid_cc.plugin.offline.run_folder import load_weights

    torch.save(CONTENTS[name], place / "in" / "x.pth")
    with pytest.raises(UnreadableFile, match="x.pth is no checkpoint"):
        load_weights(torch.nn.Linear(2, 2), place / "in" / "x.pth")


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"weight": torch.zeros(2, 2)},
        {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)},
        {"weight": 3, "bias": "x"},
        {"module.weight": torch.zeros(2, 2)},
        {1: torch.zeros(2)},
        {"weight": None, "bias": torch.zeros(2)},
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_named(place: Path, weights: dict[Any, Any]) -> None:
    from fastreid_cc.plugin.offline.run_folder import load_weights

    torch.save({"model": weights}, place / "in" / "x.pth")
    with pytest.raises(ClearError, match=r"x.pth (does not fit|is no checkpoint)"):
        load_weights(torch.nn.Linear(2, 2), place / "in" / "x.pth")


@settings(HYPOTHESIS, max_examples=80)
@given(data=st.binary(min_size=1, max_size=64), at=st.floats(0, 1), cut=st.floats(0, 1.5))
def test_damaged_checkpoints_are_refused_or_load(
    place: Path, data: bytes, at: float, cut: float
) -> None:
    from fastreid_cc.plugin.checkpoint_files import is_whole, load_file

    stream = io.BytesIO()
    torch.save({"model": torch.nn.Linear(4, 4).state_dict(), "cc": state()}, stream)
    whole = stream.getvalue()
    start = int(at * len(whole))
    path = place / "in" / "x.pth"
    path.write_bytes((whole[:start] + data + whole[start + len(data) :])[: int(cut * len(whole))])
    is_whole(str(path))
    try:
        load_file(str(path))
    except UnreadableFile as error:
        assert "x.pth" in str(error) and len(str(error)) < 1000


# ---- command lines ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((), 2),
        (("nosuch",), 2),
        (("nosuch.py",), 2),
        (("--import",), 2),
        (("--x", "label"), 2),
        (("train",), 2),
        (("train", "/"), 2),
        (("label",), 2),
        (("label", "x"), 2),
        (("label", "x.npy", "--out", "/nowhere/o"), 2),
        (("label", "x.npy", "--out", "o"), 2),
        (("label", "x.npy", "--out", "o", "--eps", "big"), 2),
        (("config", "--nosuch"), 2),
        (("config", "no key holds these words"), 1),
        (("doctor", "x"), 2),
        (("clusters",), 2),
        (("clusters", "/nowhere"), 2),
        (("clusters", "."), 2),
        (("clusters", "\0"), 2),
        (("clusters", "/dev/null"), 2),
        (("export",), 2),
        (("export", "."), 2),
        (("export", "/nowhere.yml"), 2),
        (("export", "/dev/null", "--out", "x/y"), 2),
        (("export", "fastreid_cc://../setup.py"), 2),
        (("export", "fastreid_cc://gone.yml"), 2),
        (("export", "fastreid_cc://Base-USL.yml"), 2),
        (("export", "fastreid_cc://Base-USL.yml", "--untrained"), 2),
        (("export", "fastreid_cc://Base-USL.yml", "MODEL.WEIGHTS", "gone.pth", "--out", "o"), 2),
        (("export", "fastreid_cc://Base-USL.yml", "MODEL.WEIGHTS"), 2),
        (("export", "x" * 5000), 1),
        (("--import", "no_such_module", "config"), 1),
    ],
    ids=str,
)
def test_wrong_command_lines_end_with_their_status(place: Path, words, status, capsys) -> None:
    try:
        found = cli.main(list(words))
    except SystemExit as end:  # argparse
        found = end.code
    captured = capsys.readouterr()
    assert found == status, captured.err
    assert captured.out == "" or words == ()
    assert "Traceback" not in captured.err and (captured.err or words == ())
