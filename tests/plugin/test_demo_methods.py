"""Every config below configs/demo/methods trains: a warm-up epoch, two labelled ones, tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import PAIRS, ROOT, train

from fastreid_cc.memories.bidirectional import BidirectionalMemory

METHODS = ROOT / "configs" / "demo" / "methods"
TINY = dict(zip(PAIRS[::2], PAIRS[1::2], strict=True)) | {
    "SOLVER.MAX_EPOCH": 3,
    "CC.WARMUP.EPOCHS": 1,
    "CC.WARMUP.VIEWS": 2,
    "MODEL.LOSSES.CameraProxyContrast.START_EPOCH": 1,
    "MODEL.LOSSES.AverageK.START_EPOCH": 1,
    "MODEL.LOSSES.GraphCorrelation.FEATURE_SIZE": 128,
    "MODEL.LOSSES.GraphCorrelation.CANDIDATES": 30,
}
#: Registered losses of the methods that use others than MemoryContrast alone.
LOSS = {
    "cc_adasp": {"MemoryContrast", "AdaSP"},
    "cc_average_k": {"AverageK"},
    "cc_gcl": {"MemoryContrast", "GraphCorrelation"},
    "cc_ise": {"ImplicitExtension"},
    "cc_ncplr": {"MemoryContrast", "NeighborConsistency"},
    "cc_o2cap": {"CameraProxyContrast", "OnlineAssociation"},
    "cc_scl": {"MemoryContrast", "SelectiveContrast"},
    "cc_gcl_scl": {"MemoryContrast", "GraphCorrelation", "SelectiveContrast"},
    "cap": {"CameraProxyContrast"},
    "ce_adasp": {"AdaSP"},
    "ce_triplet": set(),  # stock losses in the stock network
}


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("path", sorted(METHODS.glob("*.yml")), ids=lambda path: path.stem)
def test_a_demo_method_trains_with_its_loss(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid.config import get_cfg

    pushed, push = [], BidirectionalMemory._nearest_others
    monkeypatch.setattr(
        BidirectionalMemory,
        "_nearest_others",
        lambda memory, at: pushed.append(len(at)) or push(memory, at),
    )

    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    own = {} if cfg.CC.ENABLED else {"CC.WARMUP.EPOCHS": 0}
    pairs = TINY | own | {"OUTPUT_DIR": str(tmp_path)}
    cfg.merge_from_list([str(part) for pair in pairs.items() for part in pair])
    trainer = train(cfg)
    assert trainer.storage.history("total_loss").latest() > 0
    losses = getattr(trainer.model, "registered_losses", {})  # stock networks have none
    assert set(losses) == LOSS.get(path.stem, {"MemoryContrast"})
    assert not losses or not trainer.model.step.is_warm_up  # the stage uses those of the config
    histories = trainer.storage.histories()
    for loss in (
        losses.values() if len(losses) > 1 else ()
    ):  # fastreid logs a single one as the total
        assert any(value for value, _ in histories[f"loss_{loss.log_name}"].values())
    assert bool(pushed) == (path.stem == "cc_bmw")
