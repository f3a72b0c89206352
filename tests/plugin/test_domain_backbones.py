"""Any backbone of fastreid takes batch norm by domain: same features, every branch trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from source_runs import JOINT
from test_backbones import FAMILIES
from tiny_runs import config

pytestmark = pytest.mark.usefixtures("plugin")

#: Those of 50 layers have the layers of ResNet and take long to build.
NAMES = [n for n, (depth, _, _) in FAMILIES.items() if depth != "50x"]


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_gives_the_same_features_and_trains_every_branch(
    name: str, tmp_path: Path
) -> None:
    """IBN layers of the ResNet keep their instance half; chunks of two images inside."""
    from fastreid.modeling import build_model

    depth, size, more = FAMILIES[name]
    options = (
        "MODEL.BACKBONE.NAME",
        name,
        "MODEL.BACKBONE.DEPTH",
        depth,
        "MODEL.BACKBONE.FEAT_DIM",
        size,
        "MODEL.BACKBONE.WITH_IBN",
        name == "build_resnet_backbone",
        *more,
    )
    torch.manual_seed(0)
    plain = build_model(config(tmp_path, *options)).eval()
    ours = build_model(config(tmp_path, *JOINT, *options, "CC.SAMPLES_PER_BN", 2)).eval()
    missing = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys and all("gates" in key for key in missing.missing_keys)
    pixels = torch.rand(12, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    ids = torch.arange(12) % 3
    with torch.no_grad():
        expected = plain({"images": pixels.clone()})
        assert torch.equal(ours({"images": pixels.clone()}), expected)
        by_domain = ours({"images": pixels.clone(), "domains": ids})
        torch.testing.assert_close(by_domain, expected, atol=1e-4, rtol=1e-4)
    instance = [k for k in plain.state_dict() if ".IN." in k]
    assert bool(instance) == (name == "build_resnet_backbone")
    assert not any("sources" in k for k in ours.state_dict() if ".IN." in k)
    ours.train()
    with ours.images_of(ids):
        features = ours.heads(ours.backbone(ours.preprocess_image({"images": pixels})))
    features["embedding"].square().sum().backward()
    branches = {k: p for k, p in ours.named_parameters() if "sources." in k and p.requires_grad}
    assert branches and all(p.grad is not None for p in branches.values())
