"""MODEL.HEADS.TEST_FEAT: what evaluation and export give; memories see the neck's output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from source_runs import JOINT
from test_taught import MUTUAL
from tiny_runs import build, config, train

from fastreid_cc.errors import BadConfig

pytestmark = pytest.mark.usefixtures("plugin")
POOLED = ("MODEL.HEADS.TEST_FEAT", "pooled")
STOCK = (
    "CC.ENABLED",
    False,
    "MODEL.META_ARCHITECTURE",
    "Baseline",
    "MODEL.HEADS.NAME",
    "EmbeddingHead",
    "MODEL.LOSSES.NAME",
    '("CrossEntropyLoss",)',
)
#: Options, what is pooled of one image (None: the head's pooled map), sizes of pooled and neck.
CASES: dict[str, tuple[tuple[object, ...], int, int]] = {
    "ClusterContrastHead": (("MODEL.HEADS.EMBEDDING_DIM", 16), 128, 16),
    "MutualContrast": ((*MUTUAL, "MODEL.HEADS.EMBEDDING_DIM", 16), 256, 32),
    "EmbeddingHead": ((*STOCK, "MODEL.HEADS.EMBEDDING_DIM", 16), 128, 16),
    "MDIFHead": ((*JOINT, "MODEL.HEADS.NAME", "MDIFHead"), 128, 128),
    "MDIFHead:host": (
        (*JOINT, "MODEL.HEADS.NAME", "MDIFHead", "MODEL.HEADS.MDIF.EVALUATE", "host"),
        128,
        128,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_evaluation_gives_the_pooled_feature_and_extraction_the_neck_s(
    case: str, tmp_path: Path
) -> None:
    from fastreid_cc.plugin.loading.extract import extract_features
    from fastreid_cc.plugin.loading.target_images import collect_images

    options, pooled_size, neck_size = CASES[case]
    options = (*options, "CC.EXTRACT.IMS_PER_BATCH", 64, "CC.EXTRACT.BN", "running")
    cfg = config(tmp_path, *options, *POOLED)
    model = build(cfg).model.eval()
    heads = [model.heads, *([model.peer.heads] if case == "MutualContrast" else [])]
    with torch.no_grad():
        for module in [m for head in heads for m in head.modules()]:
            if hasattr(module, "running_mean"):
                module.running_mean.normal_()  # else an untrained neck is the identity
    seen: list[torch.Tensor] = []
    fuses = case == "MDIFHead"
    for head in heads:
        before_neck = head.fusion if fuses else head.pool_layer
        before_neck.register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = collect_images(cfg)
    tested = extract_features(cfg, model, images, tested=True)
    expected = [torch.nn.functional.normalize(x.flatten(1)) for x in seen]
    expected = torch.nn.functional.normalize(torch.cat(expected, dim=1))
    torch.testing.assert_close(tested, expected)
    assert tested.shape[1] == pooled_size
    neck = extract_features(cfg, model, images)
    plain = build(config(tmp_path, *options)).model
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(neck, extract_features(cfg, plain, images, tested=True))
    assert neck.shape[1] == neck_size
    assert neck_size != pooled_size or not torch.allclose(neck, tested, atol=0.1)


def test_stock_evaluation_and_export_measure_the_pooled_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run: labels and rows of the neck's size, tested features of the pooled one's."""
    from fastreid.evaluation import ReidEvaluator

    from fastreid_cc.plugin.offline.onnx_export import build_embedder

    sizes: list[int] = []
    process = ReidEvaluator.process

    def watched(self: Any, inputs: Any, outputs: torch.Tensor) -> None:
        sizes.append(outputs.shape[1])
        process(self, inputs, outputs)

    monkeypatch.setattr(ReidEvaluator, "process", watched)
    cfg = config(tmp_path, "MODEL.HEADS.EMBEDDING_DIM", 16, *POOLED, "SOLVER.MAX_EPOCH", 1)
    trainer = train(cfg)
    assert sizes and set(sizes) == {128}
    assert trainer._hooks[0].memory.rows.shape[1] == 16
    embedder = build_embedder(cfg)
    embedder.model.load_state_dict(trainer.model.state_dict())
    images = 255 * torch.rand(2, 3, 32, 16)
    expected = trainer.model.eval()({"images": images.clone()})
    torch.testing.assert_close(embedder(images), torch.nn.functional.normalize(expected))


def test_architectures_that_know_no_pooled_feature_refuse_it(tmp_path: Path) -> None:
    from fastreid_cc.config import faults

    (fault,) = faults(config(tmp_path, "MODEL.META_ARCHITECTURE", "MGN", *POOLED))
    assert "MODEL.HEADS.TEST_FEAT pooled needs MODEL.META_ARCHITECTURE" in fault
    stock = (*STOCK, "MODEL.META_ARCHITECTURE", "MGN", *POOLED)
    with pytest.raises(BadConfig, match=r"MODEL.HEADS.TEST_FEAT=pooled: MGN knows neck"):
        build(config(tmp_path, *stock))
