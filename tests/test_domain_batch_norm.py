"""Batch norm by domain: the target alone is plain batch norm, branches never mix."""

import copy
import math

import pytest
import torch
from torch import nn

from fastreid_cc.networks.domain_batch_norm import (
    DomainBatchNorm,
    Domains,
    convert,
    gate,
    init_target_from_sources,
    reestimate_statistics,
    strip,
    strip_state,
)
from fastreid_cc.networks.ghost_batch_norm import batch_statistics, split_batch_norm

NAMES = ("target", "one", "two")


class Half(nn.Module):
    """Instance norm on one half of the channels, batch norm on the other, as in IBN layers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.IN, self.BN = nn.InstanceNorm2d(size // 2, affine=True), nn.BatchNorm2d(size // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat([self.IN(a), self.BN(b)], 1)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        Half(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.BatchNorm2d(6),
        nn.AdaptiveAvgPool2d(1),
        nn.BatchNorm2d(6),
    )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    net[-1].bias.requires_grad_(False)
    return net


def converted(net: nn.Module, *, gate_scale: float = 0.0, names: tuple[str, ...] = NAMES):
    """(model, domains); the last layer, as a neck, has no gate."""
    domains = Domains(names)
    net[-1] = convert(net[-1], domains)
    assert convert(net, domains, gate_scale=gate_scale) is net
    assert sum(isinstance(module, DomainBatchNorm) for module in net.modules()) == 3
    return net, domains


def images(num: int = 12, seed: int = 1) -> torch.Tensor:
    return torch.randn(num, 3, 9, 7, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("gate_scale", [0.0, 2.0])
@pytest.mark.parametrize("samples", [0, 4])
@pytest.mark.parametrize("ids", [None, torch.zeros(12, dtype=torch.int64)])
def test_one_domain_with_the_gate_at_identity_is_plain_batch_norm_bit_for_bit(
    gate_scale, samples, ids
):
    """Outputs, gradients of weights and running statistics; with chunks too."""
    plain, ours = small_net(), small_net()
    for net in (plain, ours):
        split_batch_norm(net, samples)
    ours, domains = converted(ours, gate_scale=gate_scale)
    for seed in (1, 2):
        expected = plain(images(seed=seed))
        with domains.of(ids):
            found = ours(images(seed=seed))
        assert torch.equal(found, expected)
        expected.square().sum().backward()
        found.square().sum().backward()
    mine, state = dict(ours.named_parameters()), ours.state_dict()
    for name, p in plain.named_parameters():
        if p.requires_grad:
            assert torch.equal(mine[name].grad, p.grad), name
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    assert torch.equal(ours.eval()(images()), plain.eval()(images()))


@pytest.mark.parametrize("gate_scale", [0.0, 2.0, 1.0])
def test_each_domain_is_normalised_as_if_alone_in_a_model_of_its_own(gate_scale):
    torch.manual_seed(5)
    net, domains = converted(small_net(), gate_scale=gate_scale)
    with torch.no_grad():
        for p in net.parameters():  # branches and gates differ from now on
            p.add_(0.3 * torch.randn_like(p))
    alone = [copy.deepcopy(net) for _ in NAMES]
    ids = torch.tensor([2, 0, 1, 1, 0, 2, 2, 0, 1, 1, 0, 2])
    with domains.of(ids, complete=True):
        mixed = net(images())
    for domain, one in enumerate(alone):
        chosen = ids == domain
        with one[4].domains.of(ids[chosen]):
            torch.testing.assert_close(mixed[chosen], one(images()[chosen]))
    order = torch.argsort(ids, stable=True)
    ordered, other = converted(small_net(), gate_scale=gate_scale)
    ordered.load_state_dict(alone[0].state_dict())
    with other.of(ids[order]):
        torch.testing.assert_close(ordered(images()[order]), alone_output(alone, ids, order))


def alone_output(nets, ids, order):
    """The images in `order`, each through a fresh copy of its domain's model."""
    parts = []
    for domain, net in enumerate(nets):
        net = copy.deepcopy(net)
        with net[4].domains.of(torch.full((int((ids == domain).sum()),), domain)):
            parts.append(net.train()(images()[order][ids[order] == domain]))
    return torch.cat(parts)


def test_statistics_of_a_domain_follow_its_images_only():
    net, domains = converted(small_net())
    before = copy.deepcopy(net.state_dict())
    with domains.of(torch.tensor([1] * 12)):
        net(images() * 3 + 1)
    moved = {n for n, v in net.state_dict().items() if not torch.equal(v, before[n])}
    assert moved and all("sources.0." in name for name in moved)


def test_evaluation_does_not_depend_on_order_or_company():
    net, domains = converted(small_net(), gate_scale=2.0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    with domains.of(torch.arange(12) % 3):
        net(images())
    net.eval()
    with torch.no_grad():
        whole = net(images())
        order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(net(images()[order]), whole[order])
        torch.testing.assert_close(net(images()[3:4]), whole[3:4])
        with domains.of(torch.arange(12) % 3):
            torch.testing.assert_close(net(images())[::3], whole[::3])


def test_a_plain_checkpoint_loads_into_every_branch_and_ours_into_a_plain_model():
    plain = small_net()
    plain(images() * 2)
    net, domains = converted(small_net(), gate_scale=2.0)
    found = net.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all("gates" in name for name in found.missing_keys)
    net.eval(), plain.eval()
    for domain in range(3):
        with domains.of(torch.full((12,), domain)):
            assert torch.equal(net(images()), plain(images()))
    again = small_net()
    assert not again.load_state_dict(net.state_dict(), strict=False).missing_keys
    assert torch.equal(again.eval()(images()), plain(images()))


@pytest.mark.parametrize("gate_scale", [0.0, 2.0])
def test_the_stripped_model_is_the_plain_one(gate_scale):
    net, domains = converted(small_net(), gate_scale=gate_scale)
    with domains.of(torch.arange(12) % 3):
        net(images())
    expected = net.eval()(images())
    state = strip_state(net.state_dict())
    again = small_net()
    again.load_state_dict(state)
    assert strip(net) is net
    assert type(net[4]) is nn.BatchNorm2d and vars(net[4]).keys() == vars(again[4]).keys()
    assert net.state_dict().keys() == again.state_dict().keys()
    assert torch.equal(net(images()), expected)
    assert torch.equal(again.eval()(images()), expected)


def test_a_gate_that_learnt_something_stays_when_stripped_and_is_named():
    net, domains = converted(small_net(), gate_scale=2.0)
    with torch.no_grad():
        net[4].gates[0].fill_(0.5)
    expected = net.eval()(images())
    with pytest.raises(ValueError, match=r"4\.gates\.0 is a gate"):
        strip_state(net.state_dict())
    strip(net)
    assert [type(net[i]).__name__ for i in (4, 6)] == ["DomainBatchNorm2d", "BatchNorm2d"]
    assert torch.equal(net(images()), expected)
    assert not any("sources" in name for name in net.state_dict())


def test_the_published_gate_halves_every_output_at_first_and_is_the_formula():
    x = images()
    assert torch.equal(gate(x, torch.zeros(3, 2), 1.0), torch.full((12, 3, 1, 1), 0.5))
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(2))
    found = gate(x, weight, 2.0)
    for i, c in ((0, 0), (5, 2)):
        mean, std = x[i, c].mean(), (x[i, c].var() + 1e-5).sqrt()  # var: unbiased
        expected = 2 * torch.sigmoid(weight[c, 0] * mean + weight[c, 1] * std)
        torch.testing.assert_close(found[i, c, 0, 0], expected)


def test_the_gate_of_a_map_of_one_pixel_is_finite():
    x, weight = torch.tensor([[2.0]])[..., None, None], torch.tensor([[0.5, 3.0]])
    torch.testing.assert_close(gate(x, weight, 1.0).item(), 1 / (1 + math.exp(-1 - 3 * 1e-5**0.5)))


def test_a_training_step_without_a_domain_is_refused_by_name():
    domains = Domains(NAMES)
    with pytest.raises(ValueError, match=r"without images of one.*CC\.SOURCES\.IMS_PER_BATCH"):
        with domains.of(torch.tensor([0, 2]), complete=True):
            pass
    with pytest.raises(ValueError, match="domain 3 of 3"), domains.of(torch.tensor([0, 3])):
        pass


def test_a_copy_of_a_model_has_its_own_domains():
    net, domains = converted(small_net())
    other = copy.deepcopy(net)
    with domains.of(torch.tensor([1] * 12)):
        other(images())  # the target's branch: the copy knows nothing of it
    assert other[4].sources[0].num_batches_tracked == 0
    assert other[4].domains is other[6].domains is not domains


def test_frozen_bias_stays_frozen_and_batch_statistics_work_inside():
    net, domains = converted(small_net())
    assert not net[6].bias.requires_grad and not net[6].sources[1].bias.requires_grad
    net.eval()
    before = copy.deepcopy(net.state_dict())
    with batch_statistics(net), torch.no_grad():
        target, source = net(images()), None
        with domains.of(torch.full((12,), 2)):
            source = net(images())
    assert torch.equal(target, source)  # equal weights, and the statistics of the batch at hand
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_target_adopts_the_sources_weights_and_keeps_its_statistics():
    net, domains = converted(small_net(), gate_scale=2.0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    layer, before = net[4], copy.deepcopy(net[4])
    assert init_target_from_sources(net) == 3
    branches = before.sources
    torch.testing.assert_close(layer.weight, (branches[0].weight + branches[1].weight) / 2)
    torch.testing.assert_close(layer.bias, (branches[0].bias + branches[1].bias) / 2)
    torch.testing.assert_close(layer.gates[0], (before.gates[1] + before.gates[2]) / 2)
    assert torch.equal(layer.running_mean, before.running_mean)
    assert torch.equal(layer.sources[0].weight, branches[0].weight)


@pytest.mark.parametrize("samples", [0, 4])
def test_the_target_settles_statistics_of_its_own_as_the_mean_over_its_batches(samples: int):
    net = nn.ModuleDict({"seen": nn.BatchNorm2d(3), "unseen": nn.BatchNorm2d(3)})
    split_batch_norm(net, samples)
    domains = Domains(NAMES)
    convert(net, domains)
    for layer in net.values():
        with domains.of(torch.arange(12) % 3):
            layer(images())
    net.eval()
    before = copy.deepcopy(net)
    with reestimate_statistics(net):
        for part in (images(), images(seed=2)):
            net["seen"](part)
    batches = [part[: samples or 12] for part in (images(), images(seed=2))]  # the first chunk's
    seen = net["seen"]
    for found, reduce in ((seen.running_mean, torch.mean), (seen.running_var, torch.var)):
        torch.testing.assert_close(found, sum(reduce(b, (0, 2, 3)) for b in batches) / 2)
    assert seen.momentum == 0.1 and not any(module.training for module in net.modules())
    for name, value in net.state_dict().items():
        is_kept = "sources" in name or name.startswith("unseen.running")
        assert torch.equal(value, before.state_dict()[name]) or not is_kept, name


def test_layers_that_synchronise_over_processes_have_branches_that_do():
    """In evaluation: training needs CUDA."""
    net = nn.SyncBatchNorm.convert_sync_batchnorm(small_net())
    expected = net.eval()(images())
    net, domains = converted(net)
    assert all(isinstance(branch, nn.SyncBatchNorm) for branch in net[4].sources)
    with domains.of(torch.arange(12) % 3):
        torch.testing.assert_close(net(images()), expected)


def test_half_precision_stays_half_and_a_gate_at_identity_changes_no_bit():
    net, domains = converted(small_net(), gate_scale=2.0)
    for model in (net, plain := small_net()):
        model.eval().bfloat16()
    x = images().bfloat16()
    with torch.no_grad(), domains.of(torch.zeros(12, dtype=torch.int64)):
        found = net(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, plain(x))


class Shared(nn.Module):
    """One batch norm under two names, in a list and inside a sequence; its backward is watched."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.again = nn.BatchNorm2d(3)
        self.rest = nn.ModuleList([nn.Sequential(self.first, nn.ReLU()), nn.BatchNorm2d(3)])
        self.calls: list[int] = []
        self.first.register_forward_hook(lambda *_: self.calls.append(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest[1](self.rest[0](self.again(self.first(x))))


@pytest.mark.parametrize(
    "change", [lambda m: convert(m, Domains(NAMES)), lambda m: split_batch_norm(m, 4)]
)
def test_a_layer_with_several_places_is_replaced_in_all_of_them(change):
    net, plain = Shared(), Shared()
    old, parameters = net.first, dict(net.named_parameters())
    assert change(net) is net
    assert net.first is net.again is net.rest[0][0] is not old
    assert type(old) is nn.BatchNorm2d and isinstance(net.first, nn.BatchNorm2d)
    assert net.first.kind is nn.BatchNorm2d and type(net.first) is type(net.rest[1])
    for name, parameter in net.named_parameters():
        if name in parameters:
            assert parameter is parameters.pop(name)
    assert not parameters  # the same objects under the same names
    assert torch.equal(net.eval()(images()), plain.eval()(images()))
    assert net.calls == plain.calls == [1, 1, 1]


def test_parameters_keep_their_order_and_come_before_the_sources():
    """The flat buffers of fastreid's optimizer and its state go by the order."""
    net, plain = small_net(), small_net()
    split_batch_norm(net, 4)
    assert list(dict(net.named_parameters())) == list(dict(plain.named_parameters()))
    assert list(net.state_dict()) == list(plain.state_dict())
    net, _ = converted(net, gate_scale=2.0)
    names = [n for n in dict(net.named_parameters()) if "sources" not in n and "gates" not in n]
    assert names == list(dict(plain.named_parameters()))
    layer = [n[2:] for n in dict(net.named_parameters()) if n.startswith("4.")]
    assert layer == [
        "weight",
        "bias",
        "sources.0.weight",
        "sources.0.bias",
        "sources.1.weight",
        "sources.1.bias",
        "gates.0",
        "gates.1",
        "gates.2",
    ]


def test_a_second_conversion_leaves_the_layers_alone_and_stripping_chunks_stay():
    net = small_net()
    split_batch_norm(net, 4)
    kinds = [type(module) for module in net.modules()]
    net, domains = converted(net)
    layers = list(net.modules())
    convert(net, domains)
    assert list(net.modules()) == layers
    strip(net)
    assert [type(module) for module in net.modules()] == kinds
    assert net[4].samples_per_bn == 4
