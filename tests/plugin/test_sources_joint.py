"""Sources and target in every batch: who is in it, whose labels count, what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from source_runs import JOINT, PRETRAIN, watched
from test_no_label_leak import checkpoints
from tiny_runs import config, plugin_at, train

from fastreid_cc import memories  # noqa: F401  register
from fastreid_cc.registry import MEMORIES

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Any:
    """(output, trainer, batches, losses) of a joint run with two sources."""
    output = tmp_path_factory.mktemp("joint")
    with plugin_at(data_root), pytest.MonkeyPatch.context() as patch:
        return output, *watched(output, patch, *JOINT)


def test_every_batch_is_ordered_by_domain_and_holds_each(joint: Any) -> None:
    _, trainer, batches, _ = joint
    sources = trainer._hooks[0].images.sources
    assert len(batches) == 6
    for batch in batches:
        assert batch["domains"].tolist() == [0] * 8 + [1] * 8 + [2] * 8
        targets, rows = batch["targets"], batch["indices"]
        assert (targets[:8] >= 16).all()  # clusters and single images come after 16 classes
        assert (targets[8:16] < 8).all() and ((targets[16:] >= 8) & (targets[16:] < 16)).all()
        assert np.array_equal(sources.classes[rows[8:]], targets[8:])
        assert [Path(sources.paths[r]) for r in rows[8:]] == [
            Path(p) for p in batch["img_paths"][8:]
        ]
        cameras = [set(part.tolist()) for part in batch["camids"].split(8)]
        assert not (cameras[0] & cameras[1] or cameras[0] & cameras[2] or cameras[1] & cameras[2])
    assert not torch.equal(batches[0]["indices"][8:16], batches[2]["indices"][8:16])


def test_source_classes_are_rows_of_the_memory_and_both_parts_have_a_loss(joint: Any) -> None:
    _, trainer, _, losses = joint
    memory = trainer._hooks[0].memory
    assert memory.num_sources == 16
    assert memory.rows.shape == (16 + 48, 128)
    assert set(losses[0]) == {"loss_memory_contrast", "loss_memory_contrast_source"}
    torch.testing.assert_close(memory.rows.norm(dim=1), torch.ones(64))


def test_branches_of_batch_norm_have_moved_apart(joint: Any) -> None:
    state = joint[1].model.state_dict()
    name = "heads.bottleneck.0.running_mean"
    branches = [state[name]] + [
        state[name.replace("running", f"sources.{i}.running")] for i in range(2)
    ]
    assert all((branches[i] - branches[j]).abs().max() > 1e-4 for i, j in ((0, 1), (0, 2), (1, 2)))
    assert any(v.any() for n, v in state.items() if n.endswith("gates.1"))


def test_gates_have_left_identity_and_act_on_the_features(joint: Any) -> None:
    """After six steps, by the training's own losses and optimizer."""
    model = joint[1].model.eval()
    layers = [m for m in model.backbone.modules() if getattr(m, "gates", None) is not None]
    pulls = [m.gates[1].grad.norm() / m.sources[0].weight.grad.norm() for m in layers]
    assert torch.stack(pulls).median() > 0.01
    pixels = torch.rand(6, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        features = model({"images": pixels.clone()})
        before = [layer.gates[0].clone() for layer in layers]
        for layer in layers:
            layer.gates[0].zero_()
        change = (model({"images": pixels.clone()}) - features).norm() / features.norm()
        for layer, gates in zip(layers, before, strict=True):
            layer.gates[0].copy_(gates)
    assert change > 1e-3


def test_a_checkpoint_is_stock_fastreid_s_with_the_target_s_branch(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid.modeling import build_model
    from fastreid.utils.checkpoint import Checkpointer

    from fastreid_cc.networks.domain_batch_norm import strip

    options = (*JOINT, "CC.SOURCES.BN", "domain", "SOLVER.MAX_EPOCH", 1)
    model = train(config(tmp_path, *options)).model.eval()
    pixels = torch.rand(6, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = model({"images": pixels.clone()})
    stock = build_model(
        config(
            tmp_path,
            "CC.ENABLED",
            False,
            "MODEL.META_ARCHITECTURE",
            "Baseline",
            "MODEL.HEADS.NAME",
            "EmbeddingHead",
            "MODEL.LOSSES.NAME",
            '("TripletLoss",)',
        )
    ).eval()
    Checkpointer(stock).load(str(tmp_path / "model_final.pth"))
    assert strip(model) is model
    assert set(model.state_dict()) | {"heads.weight"} == set(stock.state_dict())
    for other in (stock, model):
        with torch.no_grad():
            assert torch.equal(other({"images": pixels.clone()}), expected)


@pytest.mark.parametrize("dataset", ["SyntheticReID", "SyntheticSource"])
def test_the_target_s_identities_are_never_read_and_the_sources_are(
    dataset: str, joint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permuted identities of the target give the same bytes; of a source, others."""
    from fastreid.data.datasets import DATASET_REGISTRY

    cls = DATASET_REGISTRY.get(dataset)
    original, seen = cls.__init__, []

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self).__name__ == dataset:
            people = [person for _, person, _ in self.train]
            order = np.random.default_rng(3).permutation(len(people))
            seen.append(sum(people[i] != people[j] for i, j in enumerate(order)))
            self._train = [
                (p, people[j], c) for (p, _, c), j in zip(self.train, order, strict=True)
            ]

    monkeypatch.setattr(cls, "__init__", init)
    train(config(tmp_path, *JOINT))
    assert seen and seen[0] > 20
    same = checkpoints(tmp_path) == checkpoints(joint[0])
    assert same == (dataset == "SyntheticReID")


def test_without_rows_in_the_memory_sources_meet_a_classifier_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (
        *JOINT,
        "CC.SOURCES.IN_MEMORY",
        False,
        "CC.SOURCES.LOSSES",
        '("CrossEntropyLoss",)',
        "CC.SOURCES.BN",
        "shared",
        "CC.SOURCES.SCALE",
        0.7,
        "SOLVER.MAX_EPOCH",
        2,
        "CC.SOURCES.PRETRAIN_EPOCHS",
        1,
    )
    trainer, batches, losses = watched(tmp_path, monkeypatch, *options)
    assert trainer._hooks[0].memory.rows.shape == (48, 128)
    assert trainer.model.heads.weight.shape == (16, 128)
    assert set(losses[0]) == {"loss_cls_source"}  # source labels alone
    assert losses[0]["loss_cls_source"] == pytest.approx(0.7 * np.log(16), abs=0.3)
    assert batches[0]["domains"].tolist() == [1] * 8 + [2] * 8  # no image of the target yet
    assert set(losses[2]) == {"loss_cls_source", "loss_memory_contrast"}
    assert (batches[2]["targets"][:8] >= 0).all()


@pytest.mark.parametrize("memory", sorted(MEMORIES.names()))
def test_every_memory_takes_the_rows_of_source_classes(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (
        *JOINT,
        "CC.MEMORY.NAME",
        memory,
        "CC.REFINE.NAMES",
        "()",
        "SOLVER.MAX_EPOCH",
        1,
        "DATASETS.TESTS",
        "()",
    )
    trainer, _, losses = watched(tmp_path, monkeypatch, *options)
    assert trainer._hooks[0].memory.num_sources == 16
    assert all(np.isfinite(list(step.values())).all() and len(step) == 2 for step in losses)


def test_the_stage_of_source_labels_is_that_of_pretrain_to_the_byte_and_settles_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One source: convolutions and the source's branches; then statistics from the target alone."""
    from fastreid_cc.plugin.trainer import pseudo_label_hook as hooks

    snapshots: list[dict[str, torch.Tensor]] = []

    def end(hook: Any) -> None:
        snapshots.append({k: v.clone() for k, v in hook.network.state_dict().items()})
        original(hook)
        snapshots.append({k: v.clone() for k, v in hook.network.state_dict().items()})

    original = hooks.PseudoLabelHook._end_sources
    monkeypatch.setattr(hooks.PseudoLabelHook, "_end_sources", end)
    common = (*PRETRAIN, "CC.SOURCES.LOSSES", '("CrossEntropyLoss",)', "SOLVER.MAX_EPOCH", 2)
    common += ("SOLVER.CHECKPOINT_PERIOD", 100)  # else it is settled before it is saved
    train(config(tmp_path / "pretrain", *common))
    joint = ("CC.SOURCES.MODE", "joint", "CC.SOURCES.BN", "domain", "CC.SOURCES.IN_MEMORY", False)
    train(config(tmp_path / "joint", *common, *joint))
    plain, _, apart, settled = snapshots
    for name, value in plain.items():
        branch = ".".join([*name.split(".")[:-1], "sources.0", name.split(".")[-1]])
        assert torch.equal(value, apart.get(branch, apart[name])), name
    moved = [n for n in apart if not torch.equal(apart[n], settled[n])]
    assert moved and not any("sources" in name for name in moved)
    assert any(name.endswith("running_mean") for name in moved)
