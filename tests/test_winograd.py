"""Convolutions by minimal filtering equal PyTorch's own, value and gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastreid_cc.networks import winograd as module
from fastreid_cc.networks.winograd import filters, use_winograd, winograd_conv3x3


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 11])
def test_a_line_is_filtered_as_by_hand(size: int) -> None:
    random = torch.Generator().manual_seed(size)
    line = torch.randn(size, generator=random, dtype=torch.float64)
    taps = torch.randn(3, generator=random, dtype=torch.float64)
    inputs, kernel, outputs = filters(size, torch.float64)
    found = outputs @ ((kernel @ taps).repeat(len(inputs) // len(kernel)) * (inputs @ line))
    padded = [0.0, *line.tolist(), 0.0]
    wanted = [sum(float(taps[k]) * padded[i + k] for k in range(3)) for i in range(size)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize(("size", "products"), [(1, 1), (2, 3), (4, 6), (8, 12)])
def test_products_are_as_few_as_said(size: int, products: int) -> None:
    assert len(filters(size, torch.float32)[0]) == products


@pytest.mark.parametrize("height", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("width", [1, 2, 4, 6])
def test_it_equals_the_stock_convolution(height: int, width: int) -> None:
    random = torch.Generator().manual_seed(0)
    shapes = (3, 5, height, width), (4, 5, 3, 3)
    pair = [torch.randn(s, generator=random, dtype=torch.float64) for s in shapes]
    found = []
    for conv in (winograd_conv3x3, lambda x, w: F.conv2d(x, w, padding=1)):
        x, w = (part.clone().requires_grad_() for part in pair)
        out = conv(x, w)
        out.square().sum().backward()
        found.append((out.detach(), x.grad, w.grad))
    for own, stock in zip(*found, strict=True):
        torch.testing.assert_close(own, stock, rtol=1e-10, atol=1e-11)


def test_float32_rounds_to_what_the_docstring_says() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randn(8, 128, 8, 4, generator=random)
    weight = torch.randn(128, 128, 3, 3, generator=random) / (9 * 128) ** 0.5
    exact = F.conv2d(images.double(), weight.double(), padding=1)
    error = (winograd_conv3x3(images, weight) - exact).abs().max() / exact.abs().max()
    assert 1e-8 < error < 2e-5


def test_where_it_does_not_pay_the_stock_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEWEST_CHANNELS", 4)
    stock = nn.Sequential(
        nn.Conv2d(4, 4, 3, 1, 1, bias=False),
        nn.Conv2d(4, 4, 3, 2, 1),
        nn.Conv2d(4, 4, 3, 1, 1, bias=True),
        nn.Conv2d(4, 3, 3, 1, 1, bias=False),
    )
    own = copy.deepcopy(stock)
    assert use_winograd(own) == 1 and own.state_dict().keys() == stock.state_dict().keys()
    taken: list[int] = []
    original = module.winograd_conv3x3
    monkeypatch.setattr(module, "winograd_conv3x3", lambda x, w: taken.append(1) or original(x, w))
    for batch, width, pays, times in ((32, 4, True, 1), (16, 4, True, 1), (16, 8, True, 2)):
        monkeypatch.setattr(module, "pays", lambda pays=pays: pays)
        images = torch.randn(batch, 4, 4, width)
        torch.testing.assert_close(own(images), stock(images), rtol=1e-4, atol=1e-5)
        assert len(taken) == times
    with torch.autocast("cpu", torch.bfloat16):
        own(torch.randn(32, 4, 4, 4))
    traced = torch.jit.trace(own, torch.randn(32, 4, 4, 4), check_trace=False)
    assert "_convolution" in str(traced.inlined_graph) and len(taken) == 2
    monkeypatch.setattr(module, "pays", lambda: False)
    own(torch.randn(32, 4, 4, 4))
    assert len(taken) == 2
