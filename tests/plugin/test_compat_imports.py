"""Importing fastreid: what fails without the shims, and a fastreid that was there before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# One process for all: each start of torch and fastreid takes seconds.
SCRIPT = """
import collections, importlib, json, sys, types
report = {}

def purge():
    for name in [n for n in sys.modules if n.split(".")[0] == "fastreid"]:
        del sys.modules[name]

try:
    import fastreid.engine
except ImportError as error:
    report["alone"] = str(error)
purge()

# A user's own workaround, so that fastreid is imported before the plug-in.
collections.Mapping = collections.abc.Mapping
six = types.ModuleType("torch._six"); six.string_classes = (str,); sys.modules["torch._six"] = six
from fastreid.data import build_reid_train_loader
copied_loader, kept = build_reid_train_loader, [build_reid_train_loader]
from fastreid.data.data_utils import DataLoaderX
from fastreid.engine import DefaultTrainer, launch
from fastreid.solver import build_optimizer as copied_optimizer
del collections.Mapping, sys.modules["torch._six"]

import fastreid_cc.plugin
import fastreid.data, fastreid.engine.defaults, fastreid.solver
# What fastreid or this script bound before is replaced, where the name is the same.
report["copies"] = [
    DataLoaderX.__module__.startswith("fastreid_cc."),
    fastreid.engine.defaults.JSONWriter.__module__.startswith("fastreid_cc."),
    fastreid.data.build_reid_train_loader is not copied_loader,
    fastreid.solver.build_optimizer is not copied_optimizer,
    fastreid.engine.defaults.build_optimizer is fastreid.solver.build_optimizer,
    build_reid_train_loader is fastreid.data.build_reid_train_loader,  # this script's own copy
    copied_loader is kept[0],  # under another name it stays what it was
]
report["left"] = [hasattr(collections, "Mapping"), "torch._six" in sys.modules]
module = sys.modules["fastreid.engine.launch"]
report["worker"] = launch.__wrapped__.__globals__["_distributed_worker"].__module__

from fastreid.config import get_cfg
cfg = get_cfg()
cfg.merge_from_list(json.loads(sys.argv[1]))
trainer = DefaultTrainer(cfg)
before = [p.detach().clone() for p in trainer.model.parameters()]
report["results"] = sorted(trainer.train())
moved = [not p.equal(b) for p, b in zip(trainer.model.parameters(), before)]
report["moved"] = sum(moved) / len(moved)
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from tiny_data import make_market, options

    folder = tmp_path_factory.mktemp("imports")
    root = make_market(folder / "data")
    (folder / "out").mkdir()
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(options(folder / "out", "SOLVER.MAX_EPOCH", 1))],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FASTREID_DATASETS": str(root)},
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return json.loads(answer.stdout.splitlines()[-1])


def test_fastreid_does_not_import_by_itself(report):
    assert "Mapping" in report["alone"] or "_six" in report["alone"]


def test_a_fastreid_that_was_imported_before_is_mended_too(report):
    assert all(report["copies"])
    assert report["worker"] == "fastreid_cc.plugin.compat.required.launch_without_cuda"
    assert report["moved"] > 0.95  # a gradient may be zero
    assert "mAP" in report["results"]


def test_the_borrowed_names_are_given_back(report):
    assert report["left"] == [False, False]


WITHOUT_FAISS = """
import importlib.abc, importlib.util, sys

class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "faiss":
            raise ModuleNotFoundError("No module named 'faiss'", name="faiss")

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "faiss" else find_spec(name, *a)
sys.meta_path.insert(0, Nothing())
import torch, fastreid_cc.plugin
from fastreid.utils.compute_dist import build_dist
from fastreid_cc.labeling import PseudoLabeler
features = torch.nn.functional.normalize(torch.randn(60, 8))
distances = build_dist(features, features, metric="jaccard", k1=8, k2=2)
labels = PseudoLabeler()(features, progress=False).labels
print(distances.shape, len(labels), "faiss" in sys.modules)
"""


def test_training_and_reranking_work_without_faiss():
    """fastreid imports it at its start; it stopped there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_FAISS],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert answer.stdout.split("\n")[-2] == "(60, 60) 60 False"


def test_a_missing_fastreid_is_named_with_the_command_to_type(monkeypatch):
    from fastreid_cc.errors import MissingPackage
    from fastreid_cc.plugin.compat.importing import import_fastreid

    import_fastreid()  # it is there, so nothing happens
    monkeypatch.setitem(sys.modules, "fastreid", None)
    monkeypatch.delitem(sys.modules, "fastreid.engine")
    with pytest.raises(MissingPackage, match="pip install --no-deps fastreid==1.4.0"):
        import_fastreid()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("faiss", "pip install faiss-cpu"),
        ("torchvision.transforms", "pip install torchvision"),
        ("sklearn.cluster", "pip install 'scikit-learn>=1.3'"),
        ("matplotlib.figure", "pip install 'matplotlib>=3.6'"),
        ("fastreid.engine", "pip install --no-deps fastreid==1.4.0"),
    ],
)
def test_a_missing_package_is_named_with_the_command_to_type(module, message):
    from fastreid_cc.errors import MissingPackage
    from fastreid_cc.requirements import explain_missing

    explained = explain_missing(ModuleNotFoundError("no", name=module))
    assert isinstance(explained, MissingPackage) and message in str(explained)
    other = ModuleNotFoundError("no", name="my_own_module")
    assert explain_missing(other) is other


@pytest.mark.usefixtures("plugin")
def test_a_description_of_the_environment_that_fails_stops_nothing(monkeypatch):
    from fastreid.utils import collect_env

    from fastreid_cc.plugin.compat import disabled

    monkeypatch.setitem(sys.modules, "torch.utils.cpp_extension", None)  # no setuptools
    with disabled("describe_environment_or_carry_on"), pytest.raises(ImportError):
        collect_env.collect_env_info()
    assert collect_env.collect_env_info().startswith("not available (ModuleNotFoundError")


@pytest.mark.usefixtures("plugin")
def test_disabling_a_shim_is_undone_afterwards():
    from fastreid.engine import DefaultTrainer, defaults

    from fastreid_cc.plugin.compat import disabled

    before = dict(vars(defaults)), dict(vars(DefaultTrainer))
    with disabled("train_to_the_end", "keep_flat_gradients"):
        assert vars(DefaultTrainer)["train"] is not before[1]["train"]
    assert (dict(vars(defaults)), dict(vars(DefaultTrainer))) == before
    with pytest.raises(ValueError, match="no shim called"), disabled("no_such_shim"):
        pass
