"""Domain fusion equals the graph convolution written out; evaluation looks at one image alone."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from oracles.losses import unit_rows
from torch import Tensor

from fastreid_cc.networks.domain_fusion import DomainFusion

DOMAINS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])


def fusion(num_domains: int = 3, seed: int = 0) -> DomainFusion:
    torch.manual_seed(seed)
    return DomainFusion(5, num_domains).double()


def written_out(net: DomainFusion, x: Tensor, domains: Tensor, agents: Tensor | None = None):
    """X' = [x; agents], both adjacency matrices, D^-1/2 A D^-1/2, loops."""
    n, D = len(x), len(net.agents)
    if agents is None:
        found = []
        for d in range(D):
            own = x[domains == d]
            a = torch.stack([net.attention.weight[0] @ row + net.attention.bias[0] for row in own])
            found.append(((a.exp() / a.exp().sum())[:, None] * own).sum(0))
        agents = torch.stack(found)
    nodes = torch.cat([x, agents])
    A1 = torch.eye(n + D, dtype=x.dtype)
    A1[n:, n:] = 1
    A2 = A1.clone()
    for i in range(n):
        A2[i, n + domains[i]] = A2[n + domains[i], i] = 1
    A1, A2 = (A / (A.sum(0).sqrt()[:, None] * A.sum(0).sqrt()) for A in (A1, A2))
    hidden = F.leaky_relu(A1 @ nodes @ net.first.weight.T + net.first.bias, 0.2)
    return x + (A2 @ (hidden @ net.second.weight.T + net.second.bias))[:n]


def test_training_equals_the_convolution_written_out_value_and_gradient() -> None:
    net, weights = fusion(), unit_rows(9, 5, seed=3)
    results = []
    for function in (net, lambda x, d: written_out(net, x, d)):
        x = unit_rows(9, 5, seed=1).requires_grad_()
        value = function(x, DOMAINS)
        net.zero_grad()
        (value * weights).sum().backward()
        grads = [p.grad.clone() for p in net.parameters()]
        results.append([value.detach(), x.grad, *grads])
    assert net.attention.weight.grad.abs().max() > 1e-4
    torch.testing.assert_close(results[0], results[1])


def test_the_first_step_sets_the_agents_and_later_ones_move_them() -> None:
    net = fusion()
    seen = []
    for seed in (1, 2):
        x = unit_rows(9, 5, seed=seed)
        seen.append(net._agents(x, F.one_hot(DOMAINS, 3).double()).detach())
        net(x, DOMAINS)
    torch.testing.assert_close(net.agents, 0.9 * seen[0] + 0.1 * seen[1])
    assert net.counts.tolist() == [3, 2, 4]


def test_evaluation_does_not_depend_on_the_other_images() -> None:
    net = fusion()
    net(unit_rows(9, 5), DOMAINS)
    net.eval()
    x = unit_rows(6, 5, seed=8)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    whole = net(x)
    for rows in ([3], [5, 0], [2, 2, 4], list(range(6))[::-1]):
        torch.testing.assert_close(net(x[rows]), whole[rows], rtol=1e-12, atol=1e-14)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_evaluation_is_training_with_the_running_agents_and_counts() -> None:
    """An image among as many of its domain as in training gets what the graph gives it."""
    net = fusion()
    net(unit_rows(9, 5), DOMAINS)
    net.eval()
    x = unit_rows(9, 5, seed=8)
    expected = written_out(net, x, DOMAINS, net.agents)
    torch.testing.assert_close(net(x, DOMAINS), expected)


def test_permuting_the_batch_permutes_the_result() -> None:
    order = torch.tensor([4, 0, 8, 2, 6, 1, 3, 5, 7])
    x = unit_rows(9, 5)
    first, second = fusion(), fusion()
    torch.testing.assert_close(second(x[order], DOMAINS[order]), first(x, DOMAINS)[order])
    torch.testing.assert_close(first.agents, second.agents)


def test_a_domain_without_images_keeps_its_running_agent() -> None:
    net = fusion()
    net(unit_rows(9, 5), DOMAINS)
    before = net.agents.clone()
    net(unit_rows(3, 5, seed=2), DOMAINS[:3]).sum().backward()
    assert torch.equal(net.agents[1:], before[1:]) and not torch.equal(net.agents[0], before[0])
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_agents_come_back_from_a_checkpoint() -> None:
    net, other = fusion(), fusion(seed=1)
    net(unit_rows(9, 5), DOMAINS)
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    x = unit_rows(2, 5, seed=4)
    assert torch.equal(net.eval()(x), other.eval()(x))


def test_no_domain_is_refused() -> None:
    with pytest.raises(ValueError, match="num_domains=0"):
        DomainFusion(5, 0)
