"""Every config below configs/demo/methods trains: a warm-up epoch, two labelled ones, tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import PAIRS, ROOT, metrics, train

METHODS = ROOT / "configs" / "demo" / "methods"
TINY = dict(zip(PAIRS[::2], PAIRS[1::2], strict=True)) | {
    "SOLVER.MAX_EPOCH": 3,
    "CC.WARMUP.EPOCHS": 1,
    "CC.WARMUP.VIEWS": 2,
    "MODEL.LOSSES.CameraProxyContrast.START_EPOCH": 2,
    "MODEL.LOSSES.AverageK.START_EPOCH": 2,
}
LOSS = {
    "cc_adasp": "loss_ada_sploss",
    "cc_average_k": "loss_average_k",
    "cap": "loss_camera_proxy_contrast",
    "ce_adasp": "loss_ada_sploss",
}


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("path", sorted(METHODS.glob("*.yml")), ids=lambda path: path.stem)
def test_a_demo_method_trains_with_its_loss(path: Path, tmp_path: Path) -> None:
    from fastreid.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    own = {} if cfg.CC.ENABLED else {"CC.WARMUP.EPOCHS": 0}
    pairs = TINY | own | {"OUTPUT_DIR": str(tmp_path)}
    cfg.merge_from_list([str(part) for pair in pairs.items() for part in pair])
    train(cfg)
    values = [line[LOSS.get(path.stem, "loss_memory_contrast")] for line in metrics(tmp_path)[-1:]]
    assert values and all(value > 0 for value in values)
