"""Two gloo processes equal one process: losses, gradients, memories."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gloo import run_in_two
from oracles.losses import (
    ALL_LOSSES,
    MEMORY_OF,
    graph_correlation,
    make_batch,
    memory_by_name,
    teach,
    unit_rows,
)

from fastreid_cc.labeling.feature_refinement import NeighborMean, refined_features
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.parallel.collectives import gather_rows, rank, world_size
from fastreid_cc.structures import Batch

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch without distributed"
)


def whole_batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 6, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 0, 1, 1, 2, -1, 2, 0, 3, 3, 1, 2, 4, 4, 4, 0])
    cameras = torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 2, 1, 0, 2, 1, 0])
    return images, targets, cameras, torch.arange(16)


def step(name):
    """Loss, gradient of a weight that makes the features, and memory after the update."""
    images, targets, cameras, indices = (part.chunk(world_size())[rank()] for part in whole_batch())
    weight = unit_rows(6, 8, seed=2).requires_grad_()
    memory = memory_by_name(MEMORY_OF.get(name, "cluster"))
    batch = teach(make_batch(images @ weight, targets, cameras, indices), memory)
    if ALL_LOSSES[name].needs_roles:
        batch = replace(batch, roles=indices)  # triplets that two processes share
    ALL_LOSSES[name].double().zero_grad()
    loss = ALL_LOSSES[name](batch, memory)
    loss.backward()
    own = [p.grad.flatten().double() for p in ALL_LOSSES[name].parameters() if p.grad is not None]
    gradient, value = torch.cat([weight.grad.flatten(), *own]), loss.detach()
    if world_size() > 1:  # what DDP does
        gradient = gather_rows(gradient[None]).mean(0)
        value = gather_rows(value[None]).mean(0)
    gathered = Batch(
        *(gather_rows(v) for v in (batch.features, batch.targets, batch.indices, batch.cameras))
    )
    memory.update(gathered)
    return value.item(), gradient.numpy(), memory.rows.numpy().tobytes()


def refined():
    """Bytes of features that the mean of neighbours and a graph refined."""
    rows, refiners = unit_rows(40, 8, seed=3).float(), (NeighborMean(2), graph_correlation())
    return 0.0, np.zeros(1), refined_features(rows, refiners, ExactKNN()).numpy().tobytes()


def all_steps():
    return {name: step(name) for name in ALL_LOSSES} | {"refined features": refined()}


def test_two_processes_equal_one():
    alone, pair = all_steps(), run_in_two(all_steps)
    for name, (loss, gradient, rows) in alone.items():
        for value, grad, bytes_after in (pair[0][name], pair[1][name]):
            assert value == pytest.approx(loss, rel=1e-12), name
            np.testing.assert_allclose(grad, gradient, rtol=1e-10, atol=1e-12, err_msg=name)
            assert bytes_after == rows, name
