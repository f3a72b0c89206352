"""`python -m fastreid_cc doctor`: needed, optional, data sets against published counts, weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fastreid_cc import __main__ as cli
from fastreid_cc.commands import doctor
from fastreid_cc.data.published import PUBLISHED, Published


def run(capsys, *words):
    status = cli.main(["doctor", *words])
    captured = capsys.readouterr()
    return status, captured.out


def checks(capsys, *words):
    status, out = run(capsys, "--json", *words)
    answer = json.loads(out)
    assert answer["ready"] is (status == 0)
    return status, {(c["group"], c["name"]): c for c in answer["checks"]}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "data"


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_a_sound_machine_is_ready_without_data_weights_or_gpu(data, capsys):
    status, found = checks(capsys)
    assert status == 0
    assert found["needed", "fastreid"]["text"].startswith("1.4.0, plug-in active")
    assert found["needed", "python"]["state"] == found["needed", "faiss"]["state"] == "ok"
    market = found["data", "Market1501 (Market-1501-v15.09.15)"]
    assert market["state"] == "absent"
    assert "train 12,936, query 3,368, gallery 15,913" in market["text"]
    weights = found["weights", "resnet 50x"]
    assert weights["state"] == "absent"
    assert str(data.parent / "torch/checkpoints/resnet50-19c8e357.pth") in weights["text"]


def test_versions_are_known_where_packages_do_not_list_their_modules(monkeypatch):
    """As on Python 3.10, for those without top_level.txt."""
    monkeypatch.setattr(doctor, "_distributions", dict)
    assert doctor._version("fastreid") == "1.4.0"
    assert doctor._version("sklearn")[0].isdigit() and doctor._version("yaml")[0].isdigit()
    assert doctor._version("json") == "found, version unknown" and doctor._version("gone") == ""


def test_the_table_has_no_colours_and_ends_with_the_verdict(data, capsys):
    status, out = run(capsys)
    assert status == 0 and out.isascii() and "\x1b" not in out
    assert out.rstrip().endswith("ready to run")


@pytest.mark.parametrize("gone", ["faiss", "fastreid"])
def test_what_is_needed_and_missing_is_status_1(data, capsys, monkeypatch, gone):
    real = doctor.importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name == gone else real(name)
    )
    if gone == "fastreid":
        monkeypatch.setattr(doctor.boot, "activate", lambda: (_ for _ in ()).throw(ImportError()))
    status, found = checks(capsys)
    assert status == 1
    advice = {"faiss": "pip install faiss-cpu", "fastreid": "pip install --no-deps fastreid==1.4.0"}
    assert found["needed", gone]["state"] == "missing"
    assert advice[gone] in found["needed", gone]["text"]


def test_a_plug_in_that_fails_is_told(data, capsys, monkeypatch):
    monkeypatch.setattr(doctor.boot, "activate", lambda: 1 / 0)
    monkeypatch.delitem(sys.modules, "fastreid_cc.plugin", raising=False)
    status, found = checks(capsys)
    assert status == 1
    assert found["needed", "fastreid"]["text"] == "ZeroDivisionError: division by zero"
    assert found["weights", "published weights"]["state"] == "absent"


def test_data_sets_are_counted_as_fastreid_lists_them(data, capsys):
    market = data / "Market-1501-v15.09.15"
    touch(market / "bounding_box_train", "0002_c1s1_0.jpg", "0002_c2s1_0.jpg", "Thumbs.db")
    touch(market / "query", "0001_c1s1_0.jpg")
    touch(market / "bounding_box_test", "-1_c1s1_0.jpg", "0000_c1s1_0.jpg")
    touch(data / "MSMT17_V2")
    (data / "MSMT17_V2/list_train.txt").write_text("0000/a_b_c.jpg 0\n" * 30248)
    (data / "MSMT17_V2/list_query.txt").write_text("0000/a_b_c.jpg 0\n" * 11659)
    (data / "MSMT17_V2/list_gallery.txt").write_text("0000/a_b_c.jpg 0\n" * 82161 + "\n")
    _, found = checks(capsys)
    state = found["data", "Market1501 (Market-1501-v15.09.15)"]
    assert state["state"] == "look"
    assert "found train 2, query 1, gallery 1, published train 12,936" in state["text"]
    masked = found["data", "MSMT17 (MSMT17_V2)"]
    assert masked["state"] == "ok" and "faces are masked" in masked["text"]
    assert found["data", "MSMT17 (MSMT17_V1)"]["state"] == "absent"


def test_weights_that_are_here_are_found(data, capsys):
    touch(data.parent / "torch/checkpoints")
    (data.parent / "torch/checkpoints/osnet_x0_25_imagenet.pth").write_bytes(b"x")
    touch(data.parent / "torch/checkpoints", "resnet50-19c8e357.pth")  # empty: a broken download
    _, found = checks(capsys, "--weights")
    assert found["weights", "osnet osnet_x0_25"]["state"] == "ok"
    assert found["weights", "resnet 50x"]["state"] == "absent"
    assert "hub/checkpoints" in found["weights", "mobilenetv3 Small"]["text"]
    assert len([key for key in found if key[0] == "weights"]) > 30


def test_the_published_names_and_folders_are_fastreids():
    from fastreid.data.datasets import DATASET_REGISTRY

    import fastreid_cc.plugin  # noqa: F401

    for known in PUBLISHED:
        assert DATASET_REGISTRY.get(known.name).__name__ == known.name
    assert Published("X", "gone", ("a", "b", "c"), (1, 1, 1)).count("/nowhere") is None


def test_it_runs_without_any_package(tmp_path):
    """In a Python that has nothing but the standard library."""
    import subprocess

    root = Path(doctor.__file__).parents[2]
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p];"
        f"sys.path.insert(0, {str(root)!r});"
        "from fastreid_cc.__main__ import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "missing  needed    torch" in done.stdout and "not ready: torch" in done.stdout
