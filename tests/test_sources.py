"""Sources get classes and cameras of their own; what cannot be meant is refused."""

import numpy as np
import pytest
import torch

from fastreid_cc.data.sources import hold_out, join_batches, number_sources
from fastreid_cc.structures import Batch

A = [("a/2.jpg", "a_7", "a_0"), ("a/1.jpg", "a_3", "a_1"), ("a/3.jpg", "a_3", "a_0")]
B = [("b/1.jpg", 3, 0), ("b/2.jpg", "x", 5), ("b/3.jpg", 3, 0), ("b/4.jpg", -1, 9)]


def test_classes_and_cameras_of_two_sources_are_disjoint_and_follow_the_paths():
    found = number_sources([("A", A), ("B", B)], first_camera=4)
    assert found.paths == ["a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg"]
    assert found.classes.tolist() == [0, 1, 0, 2, 3, 2]
    assert found.cameras.tolist() == [5, 4, 4, 6, 7, 6]
    assert found.domains.tolist() == [1, 1, 1, 2, 2, 2]
    assert (found.num_classes, found.num_domains) == (4, 3)
    assert found.summary() == (
        "A: 3 images of 2 identities by 2 cameras; B: 3 images of 2 identities by 2 cameras"
    )


def test_the_order_of_a_source_changes_nothing():
    one, two = (number_sources([("A", a)], first_camera=0) for a in (A, A[::-1]))
    assert one.paths == two.paths
    assert np.array_equal(one.classes, two.classes)


def test_a_fingerprint_follows_names_and_identities_of_each_source_and_not_its_place():
    """Cameras and numbers of classes do not count."""

    def prints(*listed):
        return number_sources(listed, first_camera=0).fingerprints()

    found = prints(("A", A), ("B", B))
    assert list(found) == ["A", "B"]
    assert prints(("B", B), ("A", [(f"moved/{p}", i, 0) for p, i, _ in A])) == found
    renamed = [("a/0.jpg" if "1" in p else p, i, c) for p, i, c in A]
    swapped = [(p, "a_7" if "3" in p else i, c) for p, i, c in A]
    for other in (renamed, swapped, [*A, ("a/4.jpg", "a_3", 0)]):
        assert prints(("A", other))["A"] != found["A"]


@pytest.mark.parametrize(
    ("listed", "target", "message"),
    [
        ([("A", [(p, -1, c) for p, _, c in A])], (), "A has 3 images and 0 known identities"),
        ([("A", [(p, f"unknown_{p}", c) for p, _, c in A])], (), "a source needs labels"),
        ([("A", A[1:])], (), "1 known identities"),
        ([("A", A), ("B", [("b/1", "a_3", 0), ("b/2", 1, 0)])], (), "B and A share 1 identity"),
        ([("A", A), ("B", [("a/1.jpg", 5, 0), ("b/2", 6, 0)])], (), "which A holds too"),
        ([("A", A)], ("a/3.jpg",), "a/3.jpg, which DATASETS.NAMES holds too"),
    ],
)
def test_what_cannot_be_meant_is_refused(listed, target, message):
    with pytest.raises(ValueError, match=message):
        number_sources(listed, first_camera=0, target_paths=target)


def test_batches_are_joined_in_the_order_of_the_domains():
    parts = [[np.array([0, 1]), np.array([2, 3])], [np.array([9]), np.array([8])]]
    assert [b.tolist() for b in join_batches(parts)] == [[0, 1, 9], [2, 3, 8]]
    with pytest.raises(ValueError, match="shorter"):
        join_batches([parts[0], parts[1][:1]])


def test_a_batch_knows_its_sources_and_gives_parts_of_itself():
    whole = Batch(torch.randn(4, 3), torch.tensor([5, 6, 0, 1]), torch.arange(4), torch.zeros(4))
    assert not whole.is_source.any()
    joint = Batch(
        whole.features, whole.targets, whole.indices, whole.cameras, torch.tensor([0, 0, 1, 2])
    )
    part = joint.select(joint.is_source)
    assert part.targets.tolist() == [0, 1]
    assert part.domains is not None and part.domains.tolist() == [1, 2]
    assert torch.equal(part.features, whole.features[2:])
    assert whole.select(slice(1, 2)).domains is None


def test_held_out_identities_are_a_seeded_share_of_those_that_two_cameras_saw() -> None:
    items = [(f"{i:02d}_{c}.jpg", i, c) for i in range(10) for c in range(3 if i < 8 else 1)]
    kept, held = hold_out("A", items, 0.3, (1,))
    assert sorted(kept + held) == items
    who = {item[1] for item in held}
    assert len(who) == 3 and who < set(range(8)) and not who & {item[1] for item in kept}
    assert {item[1] for item in hold_out("A", items[::-1], 0.3, (1,))[1]} == who
    assert {item[1] for item in hold_out("A", items, 0.3, (2,))[1]} != who
    with pytest.raises(ValueError, match=r"CC\.SOURCES\.VALIDATION=0\.3: of 10 .* 0 were seen"):
        hold_out("A", [(path, who, 0) for path, who, _ in items], 0.3, (1,))
