"""What every memory keeps; see `Memory`. Longer than 300 lines: a family has one file here."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastreid_cc.registry import LOSSES, MEMORIES
from fastreid_cc.structures import Batch

from .parts import DEVICES, Case, as_bytes, cases, make_batch, repeated, unit_rows

FAMILIES = (MEMORIES,)
LABELS = torch.arange(30) % 6 - 1  # five clusters and five outliers
CAMERAS = {
    "no cameras": None,
    "one camera": torch.zeros(30, dtype=torch.int64),
    "several": torch.arange(30) % 7 % 3,
}
SOURCES = (0, 3)
FEATURES = unit_rows(30, 8)
SOURCE_FEATURES = 2 * unit_rows(12, 8, seed=11)  # of twelve images of the sources' classes
SOURCE_CLASSES = torch.arange(12) % 3

with_cameras = pytest.mark.parametrize("cameras", CAMERAS.values(), ids=CAMERAS.keys())
with_sources = pytest.mark.parametrize("sources", SOURCES)


def reset(
    memory: Any,
    *,
    labels: Tensor = LABELS,
    cameras: Tensor | None = CAMERAS["several"],
    sources: int = 0,
    features: Tensor = FEATURES,
) -> Any:
    """The memory after a labelling of the images, in epoch 5."""
    memory.set_source_images(SOURCE_CLASSES[: 4 * sources].to(memory.rows.device))
    centroids = unit_rows(sources, 8, seed=12).to(features) if sources else None
    memory.reset(features, labels, cameras=cameras, source_centroids=centroids)
    memory.set_epoch(5)
    return memory


def batch_of(
    memory: Any,
    seed: int = 3,
    *,
    labels: Tensor = LABELS,
    cameras: Tensor | None = CAMERAS["several"],
    features: Tensor = FEATURES,
) -> Batch:
    """Eight images of the target, one of them twice, and six of the sources if there are any."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(len(labels), (8,), generator=generator)
    index[3] = index[2]
    rows = 3 * features[index] + 0.3 * unit_rows(8, 8, seed=seed).to(features)
    targets = memory.label_space(labels)[index]
    seen = torch.zeros(8, dtype=torch.int64) if cameras is None else cameras[index]
    batch = make_batch(rows, targets, seen, index)
    if not memory.num_sources:
        return batch
    theirs = torch.randint(12, (6,), generator=generator)
    return Batch(
        torch.cat([batch.features, SOURCE_FEATURES[theirs].to(rows)]),
        torch.cat([targets, SOURCE_CLASSES[theirs].to(targets)]),
        torch.cat([index, theirs]),
        torch.cat([seen, torch.zeros(6, dtype=torch.int64)]),
        torch.cat([torch.zeros(8, dtype=torch.int64), torch.ones(6, dtype=torch.int64)]),
    )


def read(memory: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
    """(logits, right column, mask) of a batch, as a loss reads them."""
    unit = F.normalize(batch.features)
    return memory.logits(unit, batch), memory.targets(batch), memory.loss_mask(batch)


def contrast(memory: Any, batch: Batch) -> Tensor:
    return LOSSES.get("MemoryContrast")()(batch, memory)


# ---- label space -------------------------------------------------------------------------------


@with_cameras
@with_sources
def test_targets_lie_in_the_label_space_and_columns_in_the_logits(
    case: Case, cameras: Tensor | None, sources: int
) -> None:
    memory = reset(case.build(), cameras=cameras, sources=sources)
    space = memory.label_space(LABELS)
    assert space.dtype == torch.int64 and space.shape == (30,)
    assert space.min() >= -1 and memory.num_sources == sources
    used = torch.unique(space[space >= 0])  # after the sources, without gaps
    assert torch.equal(used, sources + torch.arange(len(used)))
    batch = batch_of(memory, cameras=cameras)
    logits, columns, mask = read(memory, batch)
    assert logits.shape[0] == columns.shape[0] == len(batch.targets)
    assert columns.max() < logits.shape[1]
    assert ((columns >= 0) == (batch.targets >= 0)).all()
    if mask is not None:
        assert mask.dtype == torch.bool and mask.shape == logits.shape
        assert mask[columns >= 0, columns[columns >= 0]].all()
    assert torch.isfinite(contrast(memory, batch))


@with_sources
def test_images_of_one_cluster_share_a_target_unless_every_image_is_its_own(
    case: Case, sources: int
) -> None:
    memory = reset(case.build(), sources=sources)
    space = memory.label_space(LABELS)
    if memory.needs_labels:
        for cluster in range(5):
            assert len(set(space[LABELS == cluster].tolist())) == 1
        assert len(set(space[LABELS >= 0].tolist())) == 5
    else:
        assert len(set(space.tolist())) == 30


@with_cameras
@with_sources
@pytest.mark.parametrize(
    "labels",
    [
        torch.full((30,), -1),
        torch.zeros(30, dtype=torch.int64),
        torch.arange(30),
        torch.zeros(1, dtype=torch.int64),
        torch.full((1,), -1),
    ],
    ids=["outliers only", "one cluster", "single images", "one image", "one outlier"],
)
def test_odd_labellings_are_legal(
    case: Case, labels: Tensor, cameras: Tensor | None, sources: int
) -> None:
    few = None if cameras is None else cameras[: len(labels)]
    features = FEATURES[: len(labels)]
    memory = reset(case.build(), labels=labels, cameras=few, sources=sources, features=features)
    if not sources and (memory.label_space(labels) == -1).all():
        return  # no class at all: nothing is trained then
    batch = batch_of(memory, labels=labels, cameras=few, features=features)
    for _ in range(2):
        logits, columns, _ = read(memory, batch)
        assert torch.isfinite(logits).all() and torch.isfinite(contrast(memory, batch))
        assert columns.max() < max(logits.shape[1], 1)
        memory.update(batch)
    assert torch.isfinite(memory.rows).all()


@with_sources
def test_a_second_labelling_takes_the_place_of_the_first(case: Case, sources: int) -> None:
    memory = reset(case.build(), sources=sources)
    memory.update(batch_of(memory))
    others = torch.arange(30) % 9
    reset(memory, labels=others, sources=sources)
    batch = batch_of(memory, labels=others)
    logits, columns, _ = read(memory, batch)
    assert columns.max() < logits.shape[1] and torch.isfinite(contrast(memory, batch))


def test_what_does_not_fit_is_refused(case: Case) -> None:
    memory = case.build()
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        memory.reset(FEATURES, LABELS[:-1])
    with pytest.raises(ValueError, match="cameras"):
        memory.reset(FEATURES, LABELS, cameras=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="source_centroids"):
        memory.reset(FEATURES, LABELS, source_centroids=unit_rows(2, 9))


def test_a_cluster_without_an_image_is_refused(case: Case) -> None:
    memory = case.build()
    if not memory.needs_labels:
        pytest.skip("it does not read the clusters")
    with pytest.raises(ValueError, match=r"clusters \[2\]"):
        memory.reset(FEATURES, torch.where(LABELS == 2, 3, LABELS))


# ---- rows and logits ---------------------------------------------------------------------------


@with_sources
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", DEVICES)
def test_rows_have_unit_length_and_live_on_the_device(
    case: Case, sources: int, dtype: torch.dtype, device: str
) -> None:
    """Rows that no image has reached yet may be zero; a memory may say its rows have any length."""
    memory = reset(case.build().to(device), sources=sources, features=FEATURES.to(dtype))
    for seed in range(3):
        assert memory.rows.device.type == device and memory.rows.dtype == dtype
        lengths = memory.rows.norm(dim=1)
        away = torch.minimum((lengths - 1).abs(), lengths)
        assert torch.isfinite(lengths).all() and (not memory.unit_rows or (away < 1e-5).all())
        memory.update(batch_of(memory, seed).map(lambda value: value.to(device)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_any_float_type_move_float32_rows(case: Case, dtype: torch.dtype) -> None:
    memory = reset(case.build(), features=FEATURES.float())
    batch = batch_of(memory)
    memory.update(replace(batch, features=batch.features.to(dtype)))
    assert memory.rows.dtype == torch.float32 and torch.isfinite(memory.rows).all()


@with_sources
@pytest.mark.parametrize("device", DEVICES)
def test_logits_are_float32_and_exact_inside_autocast(
    case: Case, sources: int, device: str
) -> None:
    memory = reset(case.build().to(device), sources=sources, features=FEATURES.float())
    batch = batch_of(memory, features=FEATURES.float()).map(lambda value: value.to(device))
    x = F.normalize(batch.features).requires_grad_()
    plain = memory.logits(x, batch)
    with torch.autocast(device, dtype=torch.bfloat16):
        cast = memory.logits(x, batch)
        half = memory.logits(x.to(torch.bfloat16), batch)
    assert cast.dtype == half.dtype == torch.float32 and as_bytes(cast) == as_bytes(plain)
    assert cast.device == x.device
    cast.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    assert not memory.rows.requires_grad


@with_sources
@pytest.mark.parametrize("device", DEVICES)
def test_reset_and_update_are_the_same_bytes_inside_autocast(
    case: Case, sources: int, device: str
) -> None:
    def states() -> list[Any]:
        memory = reset(case.build().to(device), sources=sources, features=FEATURES.float())
        found = [as_bytes(memory.get_state())]
        for seed in range(2):
            batch = batch_of(memory, seed, features=FEATURES.float())
            memory.update(batch.map(lambda value: value.to(device)))
            found.append(as_bytes(memory.get_state()))
        return found

    plain = states()
    with torch.autocast(device, dtype=torch.bfloat16):
        assert states() == plain


def test_logits_of_float64_features_are_float64(case: Case) -> None:
    memory = reset(case.build(), features=FEATURES.float())
    batch = batch_of(memory)
    assert memory.logits(F.normalize(batch.features), batch).dtype == torch.float64


@with_sources
def test_permuting_the_images_changes_no_loss(case: Case, sources: int) -> None:
    """Clusters keep their numbers; an image's loss depends on its cluster, not on its place."""
    if case.variant == "random":
        pytest.skip("its rows are images drawn by number")
    order = torch.from_numpy(np.random.default_rng(2).permutation(30))
    cameras = CAMERAS["several"]
    one = reset(case.build(), sources=sources)
    other = reset(
        case.build(),
        labels=LABELS[order],
        cameras=cameras[order],
        sources=sources,
        features=FEATURES[order],
    )
    place = torch.argsort(order)
    for seed in range(3):
        batch = batch_of(one, seed)
        is_target = torch.ones_like(batch.targets, dtype=torch.bool)
        is_target[8:] = False  # sources' images stay where they are
        indices = torch.where(is_target, place[batch.indices % 30], batch.indices)
        space = other.label_space(LABELS[order])
        targets = torch.where(is_target, space[indices % 30], batch.targets)
        moved = replace(batch, indices=indices, targets=targets)
        torch.testing.assert_close(contrast(other, moved), contrast(one, batch))
        one.update(batch)
        other.update(moved)


# ---- reset, update, read: what they change -----------------------------------------------------


@with_cameras
@with_sources
def test_two_runs_give_the_same_bytes_and_leave_no_trace(
    case: Case, cameras: Tensor | None, sources: int
) -> None:
    features, labels = FEATURES.clone(), LABELS.clone()
    batches = [batch_of(reset(case.build(), sources=sources), seed) for seed in range(2)]

    def run() -> list[Any]:
        memory = reset(
            case.build(), labels=labels, cameras=cameras, sources=sources, features=features
        )
        for batch in batches:
            memory.update(batch)
        return [memory.get_state(), *read(memory, batches[0])]

    repeated(run, features, labels, cameras, batches)


def test_random_choices_come_from_the_generator_given(case: Case) -> None:
    def rows(seed: int) -> Any:
        memory = case.build()
        memory.reset(FEATURES, LABELS, generator=torch.Generator().manual_seed(seed))
        memory.update(batch_of(memory))
        return as_bytes(memory.get_state())

    assert rows(7) == rows(7)


@with_sources
def test_a_loss_only_reads(case: Case, sources: int) -> None:
    memory = reset(case.build(), sources=sources)
    batch = batch_of(memory)
    before = as_bytes(memory.get_state())
    x = F.normalize(batch.features).requires_grad_()
    memory.logits(x, batch).sum().backward()
    memory.loss_mask(batch)
    memory.targets(batch)
    memory.label_space(LABELS)
    memory.clustering_features()
    assert as_bytes(memory.get_state()) == before


@with_sources
@pytest.mark.parametrize("size", [0, 4])
def test_a_batch_of_ignored_images_moves_nothing(case: Case, sources: int, size: int) -> None:
    memory = reset(case.build(), sources=sources)
    before = as_bytes(dict(memory.named_buffers()))
    memory.update(make_batch(unit_rows(size, 8), torch.full((size,), -1)))
    assert as_bytes(dict(memory.named_buffers())) == before


def test_what_it_offers_for_clustering_has_a_row_for_each_image(case: Case) -> None:
    memory = reset(case.build(), sources=3)
    memory.update(batch_of(memory))
    offered = memory.clustering_features()
    if offered is not None:
        assert offered.shape == (30, 8) and torch.isfinite(offered).all()
    assert isinstance(memory.persists, bool)


@with_sources
def test_rows_belong_to_targets_and_images_have_rows_of_their_own(case: Case, sources: int) -> None:
    memory = reset(case.build(), sources=sources)
    classes, batch = memory.classes_of_rows(), batch_of(memory)
    assert classes.shape == (len(memory.rows),) and classes.dtype == torch.int64
    assert set(batch.targets[batch.targets >= 0].tolist()) <= set(classes.tolist())
    own, is_target = memory.rows_of_images(batch), batch.targets >= sources
    assert own.shape == batch.targets.shape and own.dtype == torch.int64
    assert (classes[own[is_target]] == batch.targets[is_target])[own[is_target] >= 0].all()
    if len(memory.rows) == sources + 30:  # a row for each image
        assert torch.equal(own[is_target], sources + batch.indices[is_target])


def test_its_figures_are_finite_and_begin_anew(case: Case) -> None:
    memory = reset(case.build())
    memory.update(batch_of(memory))
    found = memory.figures.take()
    assert all(np.isfinite(pair).all() and pair[1] >= 0 for pair in found.values())
    assert memory.figures.take() == {}


# ---- state -------------------------------------------------------------------------------------


@with_sources
def test_restored_from_its_state_it_goes_on_with_the_same_bytes(case: Case, sources: int) -> None:
    memory, other = reset(case.build(), sources=sources), case.build()
    memory.update(batch_of(memory))
    buffer = io.BytesIO()
    torch.save(memory.get_state(), buffer)
    buffer.seek(0)
    other.set_state(torch.load(buffer, weights_only=True))
    assert torch.equal(other.label_space(LABELS), memory.label_space(LABELS)) and other.epoch == 5
    batch = batch_of(memory, seed=4)
    for one in (memory, other):
        one.update(batch)
    assert as_bytes(other.get_state()) == as_bytes(memory.get_state())
    assert as_bytes(read(other, batch)) == as_bytes(read(memory, batch))
    others = torch.arange(30) % 9
    for one in (memory, other):  # the next labelling too, where rows outlive it
        centroids = unit_rows(sources, 8, seed=12) if sources else None
        one.reset(FEATURES, others, cameras=CAMERAS["several"], source_centroids=centroids)
        one.set_epoch(6)
        one.update(batch_of(memory, seed=5, labels=others))
    assert as_bytes(other.get_state()) == as_bytes(memory.get_state())


def test_the_state_is_a_copy(case: Case) -> None:
    memory = reset(case.build())
    state = memory.get_state()
    before = as_bytes(state)
    memory.update(batch_of(memory))
    assert as_bytes(state) == before


def test_a_state_that_lacks_something_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="memory state lacks"):
        case.build().set_state({})


# ---- the memories of this repository -----------------------------------------------------------


def by_rule(*rules: str) -> pytest.MarkDecorator:
    """Runs a test for the memories that choose among the rules of updates.py, with these rules."""
    chosen = []
    for case in cases(MEMORIES):
        given = {"accept": "all", **MEMORIES.parameters(case.name), **case.arguments}
        if given.get("update") in rules and given["accept"] == "all":
            chosen.append(case)
    return pytest.mark.parametrize("shipped", chosen, ids=lambda case: case.id)


@by_rule("all", "hard", "mean", "random")
def test_the_rows_of_a_batch_move_and_no_others(shipped: Case) -> None:
    memory = reset(shipped.build())
    before = memory.rows.clone()
    batch = batch_of(memory)
    memory.update(batch)
    moved = set((memory.rows != before).any(1).nonzero()[:, 0].tolist())
    rows = memory.targets(batch)
    if shipped.name in ("hybrid", "selective"):
        rows = torch.where(rows >= 0, batch.indices, -1)
    assert moved == set(rows.tolist()) - {-1}


@by_rule("all")
def test_by_the_sequential_rule_two_updates_are_one_of_both_batches(shipped: Case) -> None:
    once, twice = reset(shipped.build()), reset(shipped.build())
    if getattr(once, "push", 0):
        pytest.skip("a step pushes once, whatever its images")
    first, second = batch_of(once, seed=3), batch_of(once, seed=4)
    twice.update(first)
    twice.update(second)
    once.update(
        make_batch(
            torch.cat([first.features, second.features]),
            torch.cat([first.targets, second.targets]),
            torch.cat([first.cameras, second.cameras]),
            torch.cat([first.indices, second.indices]),
        )
    )
    torch.testing.assert_close(once.rows, twice.rows, rtol=1e-12, atol=1e-12)


@by_rule("hard", "mean")
def test_by_the_other_rules_the_order_of_the_batch_does_not_matter(shipped: Case) -> None:
    one, other = reset(shipped.build()), reset(shipped.build())
    batch = batch_of(one)
    one.update(batch)
    other.update(batch.select(torch.tensor([7, 2, 5, 0, 3, 6, 1, 4])))
    torch.testing.assert_close(other.rows, one.rows, rtol=1e-12, atol=1e-12)
