"""What every registered memory keeps."""

import io

import pytest
import torch
import torch.nn.functional as F
from oracles.losses import make_batch, memory_by_name, unit_rows

from fastreid_cc.registry import MEMORIES

LABELS = torch.arange(30) % 6 - 1
CAMERAS = torch.arange(30) % 7 % 3
INDEX = torch.tensor([3, 9, 9, 1, 28, 15, 0, 7])
VARIANTS = {name: {} for name in MEMORIES.names()} | {
    f"{name}:{rule}": {"update": rule}
    for name, rules in {
        "cluster": ("hard", "mean", "random"),
        "hybrid": ("mean",),
        "instance": ("mean",),
        "camera_proxy": ("hard", "mean"),
    }.items()
    for rule in rules
}


def make(variant):
    return memory_by_name(variant.split(":")[0], **VARIANTS[variant])


def batch_of(memory, seed=3, dtype=torch.float64):
    features = unit_rows(8, 8, seed=seed).to(dtype) * 3
    return make_batch(features, memory.label_space(LABELS)[INDEX], CAMERAS[INDEX], INDEX)


def test_the_four_memories_are_registered():
    assert set(MEMORIES.names()) >= {"cluster", "instance", "hybrid", "camera_proxy"}


@pytest.mark.parametrize("name", MEMORIES.names())
def test_parameters_are_plain_defaults(name):
    parameters = MEMORIES.parameters(name)
    assert {"temperature", "momentum"} <= parameters.keys()
    assert all(isinstance(v, bool | int | float | str | tuple) for v in parameters.values())


@pytest.mark.parametrize("name", MEMORIES.names())
@pytest.mark.parametrize(
    ("key", "value"), [("temperature", 0.0), ("momentum", -0.1), ("update", "often")]
)
def test_a_bad_value_names_its_full_key(name, key, value):
    with pytest.raises(ValueError, match=rf"CC\.MEMORY\.{name.upper()}\.{key.upper()}="):
        MEMORIES.get(name)(**{key: value})


@pytest.mark.parametrize("variant", VARIANTS)
def test_state_survives_a_checkpoint_and_goes_on_with_the_same_bytes(variant):
    memory, other = make(variant), MEMORIES.get(variant.split(":")[0])(**VARIANTS[variant])
    memory.update(batch_of(memory))
    buffer = io.BytesIO()
    torch.save(memory.get_state(), buffer)
    buffer.seek(0)
    other.set_state(torch.load(buffer, weights_only=True))
    assert other.num_targets == memory.num_targets and other.epoch == 5
    for m in (memory, other):
        m.update(batch_of(memory, seed=4))
    assert torch.equal(other.rows, memory.rows)
    batch = batch_of(memory)
    x = F.normalize(batch.features)
    assert torch.equal(other.logits(x, batch), memory.logits(x, batch))
    with pytest.raises(ValueError, match="memory state lacks"):
        other.set_state({})


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_runs_give_the_same_bytes_and_inputs_stay_untouched(variant):
    first, second = make(variant), make(variant)
    batch = batch_of(first)
    features = batch.features.clone()
    for memory in (first, second):
        memory.update(batch)
    assert torch.equal(first.rows, second.rows) and torch.equal(batch.features, features)


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_rows_of_the_batch_move_and_stay_on_the_sphere(variant):
    memory = make(variant)
    before = memory.rows.clone()
    batch = batch_of(memory)
    memory.update(batch)
    moved = (memory.rows != before).any(1)
    rows = INDEX if variant.startswith("hybrid") else memory.targets(batch)
    assert set(moved.nonzero()[:, 0].tolist()) == set(rows.tolist()) - {-1}
    lengths = memory.rows[moved].norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_of_ignored_images_moves_nothing(variant):
    memory = make(variant)
    before = memory.get_state()
    memory.update(make_batch(unit_rows(4, 8), torch.full((4,), -1)))
    after = memory.get_state()
    assert all(torch.equal(after[k], before[k]) for k in ("rows",))


@pytest.mark.parametrize("name", MEMORIES.names())
def test_targets_lie_in_the_label_space_and_columns_in_the_logits(name):
    memory = memory_by_name(name)
    targets = memory.label_space(LABELS)
    assert targets.max() < memory.num_targets and targets.min() >= -1
    batch = batch_of(memory)
    logits, mask = memory.logits(F.normalize(batch.features), batch), memory.loss_mask(batch)
    columns = memory.targets(batch)
    assert columns.max() < logits.shape[1]
    if mask is not None:
        assert mask.shape == logits.shape
        assert mask[columns >= 0, columns[columns >= 0]].all()


@pytest.mark.parametrize("name", MEMORIES.names())
def test_logits_are_float32_and_exact_inside_autocast(name):
    memory = memory_by_name(name).float()
    batch = batch_of(memory, dtype=torch.float32)
    x = F.normalize(batch.features).requires_grad_()
    plain = memory.logits(x, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = memory.logits(x, batch)
    assert cast.dtype == torch.float32 and torch.equal(cast, plain)
    assert cast.requires_grad and not memory.rows.requires_grad


@pytest.mark.parametrize("name", MEMORIES.names())
@pytest.mark.parametrize("labels", [torch.full((30,), -1), torch.zeros(30, dtype=torch.int64)])
def test_all_outliers_and_a_single_cluster_are_legal(name, labels):
    memory = MEMORIES.get(name)()
    memory.reset(unit_rows(30, 8), labels, source_centroids=unit_rows(2, 8, seed=1))
    targets = memory.label_space(labels)
    batch = make_batch(unit_rows(30, 8), targets, indices=torch.arange(30))
    memory.update(batch)
    assert torch.isfinite(memory.logits(batch.features, batch)).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_accumulated_update_of_two_batches_equals_two_only_for_the_sequential_rule(variant):
    if ":" in variant:
        pytest.skip("the other rules choose or average within what they are given")
    once, twice = make(variant), make(variant)
    parts = [batch_of(once, seed=3), batch_of(once, seed=4)]
    for part in parts:
        twice.update(part)
    once.update(
        make_batch(
            torch.cat([p.features for p in parts]),
            torch.cat([p.targets for p in parts]),
            torch.cat([p.cameras for p in parts]),
            torch.cat([p.indices for p in parts]),
        )
    )
    torch.testing.assert_close(once.rows, twice.rows, rtol=1e-12, atol=1e-12)
