"""Domain fusion equals its graph written out, looks at one image alone in evaluation, and acts.

The published form does not, under its neck: that is what the paper's algebra gives, and shown here.
"""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from oracles.losses import unit_rows
from torch import Tensor

from fastreid_cc.networks.domain_batch_norm import Domains, convert
from fastreid_cc.networks.domain_fusion import DomainFusion

DOMAINS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
both = pytest.mark.parametrize("kind", ["agents", "similarity"])


def fusion(kind: str = "agents", seed: int = 0) -> DomainFusion:
    torch.manual_seed(seed)
    return DomainFusion(5, 3, fusion=kind, temperature=0.3).double()


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
    if net.fusion == "similarity":
        return torch.stack([x_i + f(net, x_i) / 2 + heard(net, x_i, agents) / 2 for x_i in x])
    nodes = torch.cat([x, agents])
    A1 = torch.eye(n + D, dtype=x.dtype)
    A1[n:, n:] = 1
    A2 = A1.clone()
    for i in range(n):
        A2[i, n + domains[i]] = A2[n + domains[i], i] = 1
    A1, A2 = (A / (A.sum(0).sqrt()[:, None] * A.sum(0).sqrt()) for A in (A1, A2))
    hidden = F.leaky_relu(A1 @ nodes @ net.first.weight.T + net.first.bias, 0.2)
    return x + (A2 @ (hidden @ net.second.weight.T + net.second.bias))[:n]


def f(net: DomainFusion, x: Tensor) -> Tensor:
    hidden = F.leaky_relu(net.first.weight @ x + net.first.bias, 0.2)
    return net.second.weight @ hidden + net.second.bias


def heard(net: DomainFusion, x_i: Tensor, agents: Tensor) -> Tensor:
    """Sum over domains of softmax(cosine / temperature), about the agents' mean, times f(agent)."""
    m = agents.sum(0) / len(agents)
    cosines = [(x_i - m) @ (c - m) / ((x_i - m).norm() * (c - m).norm()) for c in agents]
    parts = [(cosine / net.temperature).exp() for cosine in cosines]
    return sum(p / sum(parts) * f(net, c) for p, c in zip(parts, agents, strict=True))


@both
def test_training_equals_the_graph_written_out_value_and_gradient(kind: str) -> None:
    net, weights = fusion(kind), unit_rows(9, 5, seed=3)
    results = []
    for function in (net, lambda x, d: written_out(net, x, d)):
        x = unit_rows(9, 5, seed=1).requires_grad_()
        value = function(x, DOMAINS)
        net.zero_grad()
        (value * weights).sum().backward()
        grads = [p.grad.clone() for p in net.parameters()]
        results.append([value.detach(), x.grad, *grads])
    torch.testing.assert_close(results[0], results[1])


def after_the_neck(net: DomainFusion, x: Tensor, shared: bool) -> Tensor:
    """The fused images behind a batch norm, by domain or shared, as in the head."""
    neck = torch.nn.BatchNorm1d(5).double()
    if shared:
        return neck(net(x, DOMAINS.sort().values))
    domains = Domains(("target", "one", "two"))
    with domains.of(DOMAINS):
        return convert(neck, domains)(net(x, DOMAINS))


def acts(net: DomainFusion, shared: bool = False) -> tuple[float, float]:
    """(the attention's gradient relative to the last layer's, change when the agents change)."""
    x, weights = unit_rows(9, 5, seed=1), unit_rows(9, 5, seed=3)
    (after_the_neck(net, x, shared) * weights).sum().backward()
    ratio = net.attention.weight.grad.abs().max() / net.second.weight.grad.abs().max()
    before = after_the_neck(net, x, shared)
    with torch.no_grad():
        net.attention.weight.mul_(100)  # other images make up the agents
    return float(ratio), float((after_the_neck(net, x, shared) - before).detach().abs().max())


def test_the_published_fusion_cancels_under_the_neck() -> None:
    """One constant for a domain is what an image hears, and the neck subtracts it."""
    net = fusion()
    ratio, change = acts(net)
    assert ratio < 1e-9 and change < 1e-9
    x = unit_rows(9, 5, seed=1)
    heard_by = (net(x, DOMAINS) - x - net._transform(x) / 2).detach()
    torch.testing.assert_close(heard_by[:3], heard_by[:1].expand(3, -1))
    assert heard_by[0].norm() > 0.05  # it is there; it is the same for all


@pytest.mark.parametrize("shared", [False, True])
def test_fusion_by_similarity_acts_under_the_neck(shared: bool) -> None:
    ratio, change = acts(fusion("similarity"), shared)
    assert ratio > 1e-3 and change > 1e-2


def test_the_first_step_sets_the_agents_and_later_ones_move_them() -> None:
    net = fusion()
    seen = []
    for seed in (1, 2):
        x = unit_rows(9, 5, seed=seed)
        seen.append(net._agents(x, F.one_hot(DOMAINS, 3).double()).detach())
        net(x, DOMAINS)
    torch.testing.assert_close(net.agents, 0.9 * seen[0] + 0.1 * seen[1])
    assert net.counts.tolist() == [3, 2, 4]


@both
def test_evaluation_does_not_depend_on_the_other_images(kind: str) -> None:
    net = fusion(kind)
    net(unit_rows(9, 5), DOMAINS)
    net.eval()
    x = unit_rows(6, 5, seed=8)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    whole = net(x)
    for rows in ([3], [5, 0], [2, 2, 4], list(range(6))[::-1]):
        torch.testing.assert_close(net(x[rows]), whole[rows], rtol=1e-12, atol=1e-14)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


@both
def test_evaluation_is_training_with_the_running_agents_and_counts(kind: str) -> None:
    """An image among as many of its domain as in training gets what the graph gives it."""
    net = fusion(kind)
    net(unit_rows(9, 5), DOMAINS)
    net.eval()
    x = unit_rows(9, 5, seed=8)
    expected = written_out(net, x, DOMAINS, net.agents)
    torch.testing.assert_close(net(x, DOMAINS), expected)


def test_by_similarity_a_domain_that_was_never_seen_is_not_heard() -> None:
    """The target, while source labels are learnt alone: its running agent says nothing yet."""
    net, x = fusion("similarity"), unit_rows(6, 5, seed=1)
    torch.testing.assert_close(net.eval()(x), x + net._transform(x) / 2)
    seen = torch.cat([torch.ones(3), torch.full((3,), 2)]).long()
    found = net.train()(x, seen)
    two = DomainFusion(5, 2, fusion="similarity", temperature=0.3).double()
    two.load_state_dict({k: v[:2] if v.shape[0] == 3 else v for k, v in net.state_dict().items()})
    two.counts.zero_()
    torch.testing.assert_close(found, two(x, seen - 1))


@both
def test_permuting_the_batch_permutes_the_result(kind: str) -> None:
    order = torch.tensor([4, 0, 8, 2, 6, 1, 3, 5, 7])
    x = unit_rows(9, 5)
    first, second = fusion(kind), fusion(kind)
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
