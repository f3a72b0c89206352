"""True identities shape nothing that training does; seeds and nothing else decide the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ecn import GPP
from tiny_runs import config, digest, metrics, plugin_at, train, weights

pytestmark = pytest.mark.usefixtures("plugin")

RUN = ("SOLVER.MAX_EPOCH", 2, "CC.WARMUP.EPOCHS", 1, "CC.EXTRACT.BN", "camera")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Output of the run that the others are compared with: one warm-up epoch, one labelled."""
    output = tmp_path_factory.mktemp("plain")
    with plugin_at(data_root):
        train(config(output, *RUN))
    return output


def replace_identities(monkeypatch: pytest.MonkeyPatch, change: Any) -> list[Any]:
    """Every training set built from now on has other true identities; returns those seen."""
    from fastreid.data.datasets import DATASET_REGISTRY

    dataset = DATASET_REGISTRY.get("SyntheticReID")
    original, seen = dataset.__init__, []

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self) is not dataset:  # a source, whose identities are there to be read
            return
        identities = change([person for _, person, _ in self.train])
        seen.append((self.train, identities))
        self._train = [(p, i, c) for (p, _, c), i in zip(self.train, identities, strict=True)]

    monkeypatch.setattr(dataset, "__init__", init)
    return seen


def checkpoints(output: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(output.glob("*.pth"))]


@pytest.mark.parametrize("change", ["permuted", "all the same", "all different"])
def test_other_true_identities_give_the_same_checkpoints(
    change: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(3)
    changes = {
        "permuted": lambda ids: [ids[i] for i in generator.permutation(len(ids))],
        "all the same": lambda ids: [ids[0]] * len(ids),
        "all different": lambda ids: [f"synthetic_{i}" for i in range(len(ids))],
    }
    seen = replace_identities(monkeypatch, changes[change])
    train(config(tmp_path, *RUN))
    assert seen, "the data set was not built through the changed class"
    before, after = [person for _, person, _ in seen[0][0]], seen[0][1]
    assert sum(a != b for a, b in zip(before, after, strict=True)) > 20
    assert digest(weights(tmp_path)) == digest(weights(plain))
    assert checkpoints(tmp_path) == checkpoints(plain)  # optimizer, labels and all


def test_identities_in_the_log_of_positives_reach_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECN+GPP logs how many of its positives are right; other identities change that alone."""
    options = ("SOLVER.MAX_EPOCH", 2, "MODEL.LOSSES.GraphPositives.FALLBACK", 3)
    found = []
    for name in ("true", "alone"):
        if name == "alone":  # nobody is anybody else: no positive is right
            replace_identities(monkeypatch, lambda ids: [f"synthetic_{i}" for i in range(len(ids))])
        train(config(tmp_path / name, *GPP, *options))
        lines = metrics(tmp_path / name)
        found.append([v for line in lines for k, v in line.items() if "precision" in k])
    assert found[0] and found[0] != found[1]
    assert checkpoints(tmp_path / "true") == checkpoints(tmp_path / "alone")


def test_two_runs_give_the_same_bytes(plain: Path, tmp_path: Path) -> None:
    np.random.seed(123)  # the state a process happens to be in
    train(config(tmp_path, *RUN))
    assert checkpoints(tmp_path) == checkpoints(plain)
    assert len(checkpoints(plain)) == 2


def test_the_number_of_workers_changes_nothing(plain: Path, tmp_path: Path) -> None:
    train(config(tmp_path, *RUN, "DATALOADER.NUM_WORKERS", 2))
    assert checkpoints(tmp_path) == checkpoints(plain)


def test_another_seed_gives_other_weights(plain: Path, tmp_path: Path) -> None:
    train(config(tmp_path, *RUN, "CC.SEED", 2))
    assert digest(weights(tmp_path)) != digest(weights(plain))


def test_a_supervised_run_does_depend_on_the_identities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison above would notice: with labels, other identities give other weights."""
    import torch

    supervised = (
        "CC.ENABLED",
        False,
        "MODEL.META_ARCHITECTURE",
        "Baseline",
        "MODEL.HEADS.NAME",
        "EmbeddingHead",
        "MODEL.LOSSES.NAME",
        '("CrossEntropyLoss",)',
        "SOLVER.MAX_EPOCH",
        1,
        "DATALOADER.SAMPLER_TRAIN",
        "BalancedIdentitySampler",
    )
    found = []
    for name in "ab":
        if name == "b":
            replace_identities(monkeypatch, lambda ids: ids[1:] + ids[:1])
        np.random.seed(1)
        torch.manual_seed(1)
        train(config(tmp_path / name, *supervised))
        found.append(digest(weights(tmp_path / name)))
    assert found[0] != found[1]
