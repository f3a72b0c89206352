"""Convolutions of narrow maps equal PyTorch's own, value and gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastreid_cc.networks import narrow_convolution as module
from fastreid_cc.networks.narrow_convolution import narrow_conv3x3, use_narrow_convolutions


@pytest.mark.parametrize("height", [1, 2, 5])
@pytest.mark.parametrize("width", [1, 2])
def test_it_equals_the_stock_convolution(height: int, width: int) -> None:
    random = torch.Generator().manual_seed(0)
    shapes = (3, 5, height, width), (4, 5, 3, 3)
    pair = [torch.randn(s, generator=random, dtype=torch.float64) for s in shapes]
    found = []
    for conv in (narrow_conv3x3, lambda x, w: F.conv2d(x, w, padding=1)):
        x, w = (part.clone().requires_grad_() for part in pair)
        out = conv(x, w)
        out.square().sum().backward()
        found.append((out.detach(), x.grad, w.grad))
    for own, stock in zip(*found, strict=True):
        torch.testing.assert_close(own, stock, rtol=1e-10, atol=1e-12)


def test_wider_maps_are_refused_there_and_stock_in_the_network(monkeypatch) -> None:
    with pytest.raises(ValueError, match="a map of 3 columns"):
        narrow_conv3x3(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 3, 3))
    stock = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.Conv2d(4, 4, 3, 2, 1))
    own = copy.deepcopy(stock)
    assert (
        use_narrow_convolutions(own) == 1 and own.state_dict().keys() == stock.state_dict().keys()
    )
    taken: list[int] = []
    original = module.narrow_conv3x3
    monkeypatch.setattr(module, "narrow_conv3x3", lambda x, w: taken.append(1) or original(x, w))
    for width, pays, times in ((2, True, 1), (2, False, 1), (4, True, 1), (1, True, 2)):
        monkeypatch.setattr(module, "pays", lambda pays=pays: pays)
        images = torch.randn(2, 3, 4, width)
        torch.testing.assert_close(own(images), stock(images), rtol=1e-5, atol=1e-6)
        assert len(taken) == times
    traced = torch.jit.trace(own, torch.randn(2, 3, 4, 2), check_trace=False)
    assert "_convolution" in str(traced.inlined_graph) and len(taken) == 2
