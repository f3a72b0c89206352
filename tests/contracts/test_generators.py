"""What every generator keeps: same bytes, resumable training, as many images as asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_cc.errors import BadConfig
from fastreid_cc.generators.base import Photos
from fastreid_cc.registry import GENERATORS

from .parts import Case, as_bytes, repeated

FAMILIES = (GENERATORS,)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    """Three people by four images of different sizes, one image of nobody known; all with poses."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = []
    for i in range(13):
        pixels = rng.integers(0, 256, (40 + i, 20, 3), dtype=np.uint8)
        paths.append(str(folder / f"{i:02d}.png"))
        Image.fromarray(pixels).save(paths[-1])
    scale = np.array([20, 40, 1])
    poses = {path: (rng.random((18, 3)) * scale).astype(np.float32) for path in paths}
    return Photos(paths, np.array([0, 1, 2] * 4 + [-1]), poses)


def ready(case: Case, photos: Photos, seed: int = 3, steps: int = 0) -> Any:
    """The generator after its first `steps` steps."""
    made = case.build()
    made.prepare(photos, seed=seed)
    for step in range(min(steps, made.num_steps)):
        made.train_step(step)
    return made


def pixels(generator: Any, *numbers: int) -> list[np.ndarray]:
    return [made.pixels for made in generator.draw(numbers)]


def test_two_trainings_give_the_same_bytes_and_leave_no_trace(case: Case, photos: Photos) -> None:
    def run() -> Any:
        made = ready(case, photos, steps=2)
        return [made.state_dict(), made.draw([0, 3, 1])]

    found = repeated(run)
    assert as_bytes(found) == as_bytes(run())


def test_another_seed_gives_other_images(case: Case, photos: Photos) -> None:
    found = [as_bytes(pixels(ready(case, photos, seed, steps=2), 0, 1)) for seed in (3, 4)]
    assert found[0] != found[1]


def test_images_are_as_many_as_asked_of_its_size_and_of_different_names(
    case: Case, photos: Photos
) -> None:
    made = ready(case, photos)
    size = (made.height, made.width, 3)
    found = made.draw(range(5))
    assert [(d.pixels.shape, d.pixels.dtype) for d in found] == [(size, np.uint8)] * 5
    assert len({d.name for d in found}) == 5
    assert all(d.name.endswith(".png") and Path(d.name).name == d.name for d in found)
    assert {o for d in found for o in d.origins} <= {*photos.paths, *photos.shown}
    assert made.capacity is None or made.capacity >= 5
    assert as_bytes(made.draw([3, 4])) == as_bytes(made.draw([3, 4]))


def test_what_is_cut_off_goes_on_to_the_same_bytes(
    case: Case, photos: Photos, tmp_path: Path
) -> None:
    whole = ready(case, photos, steps=3)
    if not whole.num_steps:
        assert whole.state_dict() == {}
        return
    torch.save(ready(case, photos, steps=1).state_dict(), tmp_path / "state.pth")
    rest = ready(case, photos, seed=3)
    rest.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    for step in (1, 2):
        losses = rest.train_step(step)
    assert losses and all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    assert as_bytes(rest.state_dict()) == as_bytes(whole.state_dict())
    assert as_bytes(pixels(rest, 2)) == as_bytes(pixels(whole, 2))


def test_training_changes_what_is_drawn(case: Case, photos: Photos) -> None:
    before, after = ready(case, photos), ready(case, photos, steps=3)
    changed = as_bytes(pixels(before, 0)) != as_bytes(pixels(after, 0))
    assert changed == bool(after.num_steps)


def test_drawing_amid_training_changes_no_later_step(case: Case, photos: Photos) -> None:
    looked, plain = ready(case, photos), ready(case, photos)
    for step in range(min(2, plain.num_steps)):
        looked.draw([0, 1])
        looked.train_step(step)
        plain.train_step(step)
    assert as_bytes(looked.state_dict()) == as_bytes(plain.state_dict())


def test_too_few_photos_are_refused_with_their_number(case: Case, photos: Photos) -> None:
    one = Photos(photos.paths[:1], np.zeros(1, np.int64), photos.poses)
    with pytest.raises(BadConfig, match=rf"{case.part.key}.*\b1\b"):
        case.build().prepare(one, seed=1)


def test_what_it_needs_to_know_of_photos_is_asked_for(case: Case, photos: Photos) -> None:
    for needed, given in (
        (case.part.needs_people, Photos(photos.paths, None, photos.poses)),
        (case.part.needs_poses, Photos(photos.paths, photos.people)),
    ):
        if needed:
            with pytest.raises(BadConfig, match=case.part.key):
                case.build().prepare(given, seed=1)
        else:
            case.build().prepare(given, seed=1)
