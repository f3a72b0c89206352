"""What makes a backbone fast acts, and changes rounding alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import config
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("plugin")
IMAGES = torch.randn(4, 3, 32, 16, generator=torch.Generator().manual_seed(0))


def backbone(folder: Path, *pairs: object) -> nn.Module:
    from fastreid.modeling.backbones import build_backbone

    torch.manual_seed(0)
    return build_backbone(config(folder, *pairs))


def test_channels_last_reaches_every_map(tmp_path: Path) -> None:
    plain, fast = (
        backbone(tmp_path, "MODEL.BACKBONE.CHANNELS_LAST", on).eval() for on in (False, True)
    )
    assert not any(module._forward_pre_hooks for module in plain.modules())
    seen: list[Tensor] = []
    for module in fast.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, out: seen.append(out))
    found = fast(IMAGES)
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in seen)
    torch.testing.assert_close(found, plain(IMAGES), rtol=1e-4, atol=1e-5)


def test_channels_last_is_left_out_where_it_breaks_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """oneDNN's gradient of RepVGG's first 1x1 convolution freed what was not its own."""
    name = ("MODEL.BACKBONE.NAME", "build_repvgg_backbone", "MODEL.BACKBONE.DEPTH", "A0")
    fast = backbone(tmp_path, *name, "MODEL.BACKBONE.CHANNELS_LAST", True)
    assert not fast._forward_pre_hooks and "a 1x1 convolution of 3 channels" in caplog.text
    fast(IMAGES).sum().backward()


def test_wide_convolutions_of_a_resnet_are_computed_by_minimal_filtering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.networks import winograd

    name = ("MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.BACKBONE.DEPTH", "18x")
    plain, fast = (
        backbone(tmp_path, *name, "MODEL.BACKBONE.WINOGRAD", on).eval() for on in (False, True)
    )
    taken: list[int] = []
    stock = winograd.winograd_conv3x3
    monkeypatch.setattr(winograd, "pays", lambda: True)
    monkeypatch.setattr(winograd, "FEWEST_ROWS", 1)
    monkeypatch.setattr(
        winograd, "winograd_conv3x3", lambda x, w: taken.append(len(w)) or stock(x, w)
    )
    torch.testing.assert_close(fast(IMAGES), plain(IMAGES), rtol=1e-4, atol=1e-5)
    assert sorted(taken) == [64] * 4 + [128] * 3 + [256] * 3 + [512] * 4
    assert plain.state_dict().keys() == fast.state_dict().keys()


def test_low_precision_is_for_evaluation_and_copies_have_their_own_weights(tmp_path: Path) -> None:
    from fastreid_cc.plugin.modeling.fast_backbone import _test_in

    plain, fast = backbone(tmp_path), backbone(tmp_path)
    _test_in(fast, torch.bfloat16)
    torch.testing.assert_close(fast.train()(IMAGES), plain.train()(IMAGES), rtol=0, atol=0)
    found, exact = fast.eval()(IMAGES), plain.eval()(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain(IMAGES)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    assert torch.equal(found, expected.float())
    other = copy.deepcopy(fast)
    for parameter in other.parameters():
        parameter.data.zero_()
    assert torch.equal(fast(IMAGES), found) and not torch.equal(other(IMAGES), found)
    assert fast.state_dict().keys() == plain.state_dict().keys()


def test_the_key_asks_for_the_format_of_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.modeling import fast_backbone

    for has_units in (True, False):
        monkeypatch.setattr(fast_backbone, "has_bfloat16_units", lambda device: has_units)  # noqa: B023
        found = backbone(tmp_path, "TEST.AMP", True).eval()(IMAGES)
        assert torch.equal(found, backbone(tmp_path).eval()(IMAGES)) != has_units
    assert fast_backbone.half_precision("cpu", "bfloat16") == torch.float32


def test_a_compiled_backbone_trains_under_its_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(
        torch, "compile", lambda f, **kw: lambda *a, **k: (calls.append(1), f(*a, **k))[1]
    )
    plain: Any = backbone(tmp_path)
    fast: Any = backbone(tmp_path, "MODEL.BACKBONE.COMPILE", "eager", "CC.EXTRACT.BN", "running")
    assert torch.equal(fast(IMAGES), plain(IMAGES)) and calls == [1]
    assert fast.state_dict().keys() == plain.state_dict().keys()


def test_a_network_that_changes_between_batches_is_not_compiled(tmp_path: Path) -> None:
    from fastreid_cc.errors import BadConfig

    pairs = ("MODEL.BACKBONE.COMPILE", "eager", "CC.EXTRACT.BN", "camera")
    with pytest.raises(BadConfig, match=r"COMPILE=eager needs CC\.EXTRACT\.BN running"):
        backbone(tmp_path, *pairs)
