"""The colour-robust augmentation: limits, randomness, and what it leaves alone."""

import random
import re

import numpy as np
import pytest
from PIL import Image

from fastreid_cc.data.augment import ColorRobust
from fastreid_cc.registry import keyword_arguments

OFF = dict.fromkeys(keyword_arguments(ColorRobust), 0.0)


def picture(seed=0, size=(32, 64)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


def test_with_every_strength_at_zero_nothing_changes():
    image = picture()
    result = ColorRobust(**OFF)(image)
    assert np.array_equal(np.asarray(result), np.asarray(image))


def test_colours_of_strength_zero_are_the_identity():
    image = picture()
    assert np.array_equal(np.asarray(ColorRobust(**{**OFF, "prob": 1.0})(image)), np.asarray(image))


def test_a_mirror_is_a_mirror():
    image = picture()
    result = ColorRobust(**{**OFF, "flip_prob": 1.0})(image)
    assert np.array_equal(np.asarray(result), np.asarray(image)[:, ::-1])


def test_a_mirror_inside_the_affine_map_is_the_same_mirror():
    image = picture()
    random.seed(3)
    result = ColorRobust(**{**OFF, "flip_prob": 1.0, "shift": 1e-9})(image)
    difference = np.asarray(result).astype(int) - np.asarray(image)[:, ::-1]
    assert np.abs(difference).max() <= 1  # interpolation rounds down


def test_grey_has_equal_channels():
    result = np.asarray(ColorRobust(**{**OFF, "gray_prob": 1.0})(picture()))
    assert (result == result[..., :1]).all()


def test_the_colour_table_is_gamma_gain_and_bias():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    change = ColorRobust(**{**OFF, "prob": 1.0, "gamma": 0.5, "gain": 0.3, "bias": 0.1})
    random.seed(1)
    result = change(ramp)
    random.seed(1)
    for _ in range(5):  # mirror, zoom, two shifts, and the grey of the frame (randrange)
        random.random() if _ < 1 else random.uniform(0, 0) if _ < 4 else random.randrange(256)
    for _ in range(3):  # blur, margins, colours: which happen
        random.random()
    shared, _ = random.uniform(-0.5, 0.5), random.uniform(0, 0)
    gamma = [np.exp(shared + 0.5 * random.uniform(-0.5, 0.5)) for _ in range(3)]
    gain = [np.exp(random.uniform(-0.3, 0.3)) for _ in range(3)]
    bias = [random.uniform(-0.1, 0.1) for _ in range(3)]
    x = np.arange(256) / 255
    for c in range(3):
        expected = np.floor(np.clip(x ** gamma[c] * gain[c] + bias[c], 0, 1) * 255 + 0.5)
        assert np.abs(result[0, :, c] - expected).max() <= 1


def test_margins_leave_the_middle_and_change_the_rim():
    image = np.asarray(picture())
    change = ColorRobust(**{**OFF, "margin_prob": 1.0, "margin": 0.25})
    random.seed(0)
    results = [change(image) for _ in range(20)]
    assert all(np.array_equal(r[:, 8:24], image[:, 8:24]) for r in results)
    assert sum(not np.array_equal(r, image) for r in results) >= 18


def test_erasing_stays_below_its_area():
    image = np.asarray(picture())
    change = ColorRobust(**{**OFF, "erase_prob": 1.0, "erase_area": 0.2})
    random.seed(0)
    shares = [(change(image) != image).any(-1).mean() for _ in range(50)]
    assert 0 < min(shares) and max(shares) < 0.25


def test_the_same_seed_gives_the_same_image_and_no_other_generator_is_touched():
    change, image = ColorRobust(), picture()
    np.random.seed(4)
    before = np.random.get_state()[1].copy()
    random.seed(9)
    first = [np.asarray(change(image)) for _ in range(8)]
    random.seed(9)
    second = [np.asarray(change(image)) for _ in range(8)]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(np.random.get_state()[1], before)


def test_the_input_is_left_alone_and_its_kind_and_size_are_kept():
    for image in (picture(), np.asarray(picture()), picture(size=(17, 9)), picture().convert("L")):
        before = np.array(image)
        random.seed(2)
        for _ in range(20):
            result = ColorRobust()(image)
            assert type(result) is (np.ndarray if isinstance(image, np.ndarray) else Image.Image)
            assert np.asarray(result).shape == (*before.shape[:2], 3)
        assert np.array_equal(np.asarray(image), before)


def test_values_out_of_range_are_reported_together_by_key():
    with pytest.raises(ValueError) as raised:
        ColorRobust(prob=1.5, gamma=-1.0, margin=0.6)
    for key in ("PROB=1.5", "GAMMA=-1.0", "MARGIN=0.6"):
        assert re.search(rf"INPUT\.COLOR_ROBUST\.{re.escape(key)}", str(raised.value))


def test_shade_is_a_ramp_of_light_the_same_for_all_channels():
    flat = np.full((64, 32, 3), 60, np.uint8)
    random.seed(4)
    result = ColorRobust(**{**OFF, "prob": 1.0, "shade": 0.5})(flat).astype(float)
    assert (result == result[..., :1]).all()
    rows, columns = result[..., 0].mean(1), result[..., 0].mean(0)
    for line in (rows, columns):
        steps = np.diff(line)
        assert (steps >= 0).all() or (steps <= 0).all()
    assert 60 * np.exp(-1) - 1 <= result.min() < 55
    assert 65 < result.max() <= 60 * np.exp(1)
