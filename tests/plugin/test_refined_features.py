"""GCL, SCL and smoothed features inside stock training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from source_runs import JOINT, watched
from test_no_label_leak import checkpoints, replace_identities
from test_resume import same_end
from tiny_runs import build, config, digest, metrics, train, weights

from fastreid_cc.errors import BadConfig

pytestmark = pytest.mark.usefixtures("plugin")
GCL: tuple[object, ...] = (
    "MODEL.LOSSES.NAME",
    '("MemoryContrast","GraphCorrelation")',
    "MODEL.LOSSES.GraphCorrelation.FEATURE_SIZE",
    128,
    "MODEL.LOSSES.GraphCorrelation.HIDDEN",
    16,
    "MODEL.LOSSES.GraphCorrelation.NEIGHBORS",
    4,
    "MODEL.LOSSES.GraphCorrelation.CANDIDATES",
    8,
    "MODEL.LOSSES.GraphCorrelation.LR_FACTOR",
    10.0,
)
GCL_SCL = (
    *GCL,
    "MODEL.LOSSES.NAME",
    '("MemoryContrast","GraphCorrelation","SelectiveContrast")',
    "CC.MEMORY.NAME",
    "selective",
    "CC.MEMORY.SELECTIVE.RECIPROCAL",
    4,
)


class Clustered:
    """What every labelling of a run clustered, gave, and filled the memory by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from fastreid_cc.plugin.trainer.pseudo_label_hook import PseudoLabelHook

        self.clustered: list[torch.Tensor] = []
        self.labels: list[np.ndarray] = []
        self.kept: list[torch.Tensor] = []
        cluster, reset = PseudoLabelHook._cluster, PseudoLabelHook._reset_memory

        def watched_cluster(hook: Any, features: Any, epoch: int) -> Any:
            labeler = hook.labeler

            def spy(given: torch.Tensor, *rest: Any, **more: Any) -> Any:
                self.clustered.append(given.clone())
                found = labeler(given, *rest, **more)
                self.labels.append(found.labels)
                return found

            spy.neighbors, spy.refiners = labeler.neighbors, labeler.refiners
            hook.labeler = spy
            try:
                return cluster(hook, features, epoch)
            finally:
                hook.labeler = labeler

        def watched_reset(hook: Any, memory: Any, features: torch.Tensor, labels: Any) -> None:
            self.kept.append(features.clone())
            reset(hook, memory, features, labels)

        monkeypatch.setattr(PseudoLabelHook, "_cluster", watched_cluster)
        monkeypatch.setattr(PseudoLabelHook, "_reset_memory", watched_reset)


def test_with_w_0_a_run_is_that_of_cluster_contrast_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SCALE 0 keeps W at 0: labels of every epoch, features, and the weights at the end."""
    found = []
    for name, options in (
        ("plain", ()),
        ("w0", (*GCL, "MODEL.LOSSES.GraphCorrelation.SCALE", 0.0)),
    ):
        with monkeypatch.context() as patch:
            seen = Clustered(patch)
            train(config(tmp_path / name, *options, "SOLVER.MAX_EPOCH", 3))
        state = weights(tmp_path / name)
        own = {k: v for k, v in state.items() if not k.startswith("registered_losses.")}
        assert len(state) - len(own) == (5 if name == "w0" else 0)
        found.append((seen, digest(own)))
    (plain, weights_plain), (w0, weights_w0) = found
    assert len(plain.labels) == 3
    assert all(map(np.array_equal, plain.labels, w0.labels))
    assert all(map(torch.equal, plain.clustered, w0.clustered))
    assert weights_plain == weights_w0


def test_refined_features_are_clustered_and_plain_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parameters learn, by their rate; from the second labelling on W is not 0."""
    seen = Clustered(monkeypatch)
    options = (*GCL_SCL, "SOLVER.MAX_EPOCH", 3, "CC.LABELS.LOG_PLAIN", True)
    start = build(config(tmp_path / "start", *options))
    trainer = train(config(tmp_path / "run", *options))
    for model in (start.model, trainer.model):
        assert set(model.registered_losses) == set(trainer.cfg.MODEL.LOSSES.NAME)
    before, after = (
        dict(m.registered_losses.named_parameters()) for m in (start.model, trainer.model)
    )
    assert len(before) == 5 and not any(torch.equal(before[n], after[n]) for n in before)
    rates = {g["initial_lr"] for g in trainer.optimizer.param_groups}
    assert max(rates) == pytest.approx(10 * trainer.cfg.SOLVER.BASE_LR)

    plain, refined = seen.clustered[::2], seen.clustered[1::2]  # LOG_PLAIN labels both
    assert len(seen.kept) == 3 and all(map(torch.equal, plain, seen.kept))
    apart = [(a - b).norm(dim=1) for a, b in zip(refined, plain, strict=True)]
    assert not apart[0].any() and all(values.min() > 0.01 for values in apart[1:])

    logged = metrics(tmp_path / "run")
    for name, epochs in (
        ("cc/ari_plain", 3),
        ("cc/num_clusters_plain", 3),
        ("cc/memory_accepted", 3),
        ("cc/graph_correlation_attention_same", 3),
    ):
        values = [line[name] for line in logged if name in line]
        assert len(values) == epochs, name  # once an epoch
        assert all(-1 <= value <= 48 for value in values)
    accepted = [line["cc/memory_accepted"] for line in logged if "cc/memory_accepted" in line]
    assert 0 < accepted[-1] < 1
    first = next(line for line in logged if "cc/ari" in line)
    assert first["cc/ari_plain"] == first["cc/ari"]  # W was 0


def test_smoothed_features_are_clustered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Clustered(monkeypatch)
    train(config(tmp_path, "CC.LABELS.SMOOTH_NEIGHBORS", 3, "SOLVER.MAX_EPOCH", 1))
    near = (seen.kept[0] @ seen.kept[0].T).topk(4).indices
    torch.testing.assert_close(seen.clustered[0], seen.kept[0][near].mean(1))


def test_resumed_in_mid_epoch_it_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two labellings; the next one refines by the restored weights."""
    options = ("CC.LABELS.SMOOTH_NEIGHBORS", 2, "CC.LABELS.PERIOD", 2, "SOLVER.MAX_EPOCH", 5)
    same_end(tmp_path, monkeypatch, 7, *GCL_SCL, *options)


def test_labels_of_plain_features_and_identities_reach_the_log_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also beside a refiner with a state, and an automatic eps."""
    options = (*GCL, "CC.REFINE.NAMES", '("self_paced",)', "CC.CLUSTER.DBSCAN.AUTO_RHO", 0.05)
    for name in ("without", "with", "others"):
        if name == "others":
            replace_identities(monkeypatch, lambda ids: ids[5:] + ids[:5])
        train(config(tmp_path / name, *options, "CC.LABELS.LOG_PLAIN", name != "without"))
    assert checkpoints(tmp_path / "without") == checkpoints(tmp_path / "with")
    assert checkpoints(tmp_path / "without") == checkpoints(tmp_path / "others")
    values = [
        [line["cc/ari_plain"] for line in metrics(tmp_path / name) if "cc/ari_plain" in line]
        for name in ("without", "with", "others")
    ]
    assert values[0] == [] and len(values[1]) == 2 and values[1] != values[2]


def test_beside_sources_both_parts_of_a_batch_learn_and_the_target_is_refined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Clustered(monkeypatch)
    options = ("CC.REFINE.NAMES", "()", "CC.MEMORY.SELECTIVE.REINIT", False, "SOLVER.MAX_EPOCH", 2)
    trainer, _, losses = watched(tmp_path, monkeypatch, *JOINT, *GCL_SCL, *options)
    names = {"loss_memory_contrast", "loss_graph_correlation", "loss_selective_contrast"}
    assert set(losses[-1]) == names | {f"{name}_source" for name in names}
    assert all(np.isfinite(list(found.values())).all() for found in losses)
    memory = trainer._hooks[0].memory
    assert memory.num_sources == 16 and len(memory.rows) == len(memory.reach) == 16 + 48
    assert [x.shape for x in seen.clustered] == [(48, 128)] * 2
    assert (seen.clustered[-1] - seen.kept[-1]).norm(dim=1).min() > 0.01


def test_the_teacher_refines_by_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.losses.graph_correlation import GraphCorrelation

    used, refine = [], GraphCorrelation.refine_features
    monkeypatch.setattr(
        GraphCorrelation,
        "refine_features",
        lambda loss, *given: used.append(loss) or refine(loss, *given),
    )
    trainer = train(config(tmp_path, *GCL, "CC.TEACHER.ENABLED", True))
    (teacher,) = {id(loss): loss for loss in used}.values()
    assert teacher is trainer._hooks[0].model.registered_losses["GraphCorrelation"]
    assert teacher is not trainer.model.registered_losses["GraphCorrelation"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("MODEL.LOSSES.GraphCorrelation.FEATURE_SIZE", 64), "FEATURE_SIZE=64.*128"),
        (("MODEL.LOSSES.GraphCorrelation.NEIGHBORS", 9), "CANDIDATES=8 must not be below"),
        (("CC.MEMORY.NAME", "instance"), "GraphCorrelation: refined features are clustered"),
        (("MODEL.META_ARCHITECTURE", "MutualContrast"), "MutualContrast has two"),
        (
            ("MODEL.LOSSES.NAME", '("MemoryContrast",)', "CC.LABELS.LOG_PLAIN", True),
            "LOG_PLAIN=True, but nothing refines",
        ),
        (
            ("MODEL.LOSSES.NAME", '("SelectiveContrast",)'),
            "SelectiveContrast needs CC.MEMORY.NAME selective, found cluster",
        ),
        (
            ("CC.MEMORY.NAME", "instance", "CC.LABELS.SMOOTH_NEIGHBORS", 4),
            "SMOOTH_NEIGHBORS=4, GraphCorrelation: refined",
        ),
    ],
)
def test_what_does_not_fit_is_named_before_an_image_is_read(
    options: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match=message):
        build(config(tmp_path, *GCL, *options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("CC.LABELS.SMOOTH_NEIGHBORS", 48), r"SMOOTH_NEIGHBORS=48 needs .* found 47"),
        (
            (*GCL, "MODEL.LOSSES.GraphCorrelation.NEIGHBORS", 48)
            + ("MODEL.LOSSES.GraphCorrelation.CANDIDATES", 50),
            r"GraphCorrelation\.NEIGHBORS=48 needs .* found 47",
        ),
    ],
)
def test_more_neighbours_than_images_end_the_run_at_the_first_labelling(
    options: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(config(tmp_path, *options))
