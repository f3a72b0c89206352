"""Chunked batch norm equals a split over processes; batch statistics leave no trace."""

import copy

import pytest
import torch
from torch import nn

from fastreid_cc.networks.ghost_batch_norm import batch_statistics, split_batch_norm


def small_net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(8),
    )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.double()


def test_one_process_with_chunks_equals_a_four_way_split_forward_and_backward() -> None:
    whole, split = small_net(), small_net()
    assert split_batch_norm(whole, 8) is whole
    assert [whole[i].samples_per_bn for i in (1, 5)] == [8, 8]
    x = torch.randn(32, 3, 9, 7, dtype=torch.float64)
    out = whole(x)
    out.square().mean().backward()

    replicas = [copy.deepcopy(split) for _ in range(4)]
    parts = torch.cat([net(part) for net, part in zip(replicas, x.chunk(4), strict=True)])
    parts.square().mean().backward()
    torch.testing.assert_close(out, parts, rtol=1e-12, atol=1e-12)
    for name, p in whole.named_parameters():
        summed = sum(dict(net.named_parameters())[name].grad for net in replicas)
        torch.testing.assert_close(p.grad, summed, rtol=1e-10, atol=1e-12)
    for name, buffer in whole.named_buffers():  # as replica 0 of DataParallel
        torch.testing.assert_close(buffer, dict(replicas[0].named_buffers())[name])


def test_chunks_differ_from_the_whole_batch() -> None:
    x = torch.randn(32, 3, 9, 7, dtype=torch.float64)
    chunked, plain = small_net(), small_net()
    split_batch_norm(chunked, 8)
    assert not torch.allclose(chunked(x), plain(x))
    plain.load_state_dict(chunked.state_dict())  # same names: checkpoints stay plain
    assert torch.equal(chunked.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(("batch", "chunks"), [(7, 1), (20, 2), (28, 4), (3, 1)])
def test_a_batch_that_is_no_multiple_is_cut_into_near_equal_chunks(batch: int, chunks: int) -> None:
    net = split_batch_norm(nn.BatchNorm1d(4), 8)
    x = torch.randn(batch, 4)
    parts = [nn.BatchNorm1d(4)(p) for p in torch.tensor_split(x, chunks)]
    torch.testing.assert_close(net(x), torch.cat(parts))


def test_zero_leaves_the_model_alone() -> None:
    net = small_net()
    assert split_batch_norm(net, 0) is net
    assert type(net[1]) is nn.BatchNorm2d


def test_batch_statistics_normalise_with_the_batch_and_leave_no_trace() -> None:
    net = small_net().eval()
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(16, 3, 9, 7, dtype=torch.float64) * 5 + 2
    with batch_statistics(net), torch.no_grad():
        seen = net(x)
    with torch.no_grad():
        expected = small_net().train()(x)
    torch.testing.assert_close(seen, expected)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
    assert not net.training
