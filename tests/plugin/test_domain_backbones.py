"""Any backbone of fastreid takes batch norm by domain: same features, every branch trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from source_runs import JOINT
from test_backbones import FAMILIES
from tiny_runs import VIT_PAIRS, config

pytestmark = pytest.mark.usefixtures("plugin")

#: Those of 50 layers have the layers of ResNet and take long to build; a ViT has no batch norm.
NAMES = [n for n, (depth, _, _) in FAMILIES.items() if depth not in ("50x", "") and "vit" not in n]


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


def test_a_backbone_without_batch_norm_is_refused_and_the_layers_of_others_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A ViT used to pass in silence with branches in its neck alone."""
    from fastreid.modeling import build_model

    vit = ("MODEL.BACKBONE.NAME", "build_vit_backbone", "MODEL.BACKBONE.DEPTH", "small")
    size = ("MODEL.BACKBONE.FEAT_DIM", 768)
    with pytest.raises(ValueError, match="BN=rectified, MODEL.BACKBONE.NAME=build_vit_backbone: "):
        build_model(config(tmp_path, *JOINT, *vit, *size, *VIT_PAIRS))
    with caplog.at_level("INFO"):
        build_model(config(tmp_path, *JOINT))
    assert "79 layers of the backbone, 1 of the head" in caplog.text
