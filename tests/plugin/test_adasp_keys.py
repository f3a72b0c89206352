"""Configs written for the AdaSP authors' fork of fastreid: keys become ours, with a warning."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("plugin")

FORK = """\
MODEL:
  META_ARCHITECTURE: Baseline
  HEADS: {CLS_ENABLE: %s, NECK_FEAT: after}
  LOSSES:
    NAME: ("AdaSP",)
    ADASP: {%s}
"""


def merged(path: Path, *, classifier: bool = False, keys: str = "SCALE: 0.5, TYPE: sp-h") -> Any:
    from fastreid.config import get_cfg

    path.write_text(FORK % (classifier, keys))
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    return cfg


def test_a_file_of_the_fork_is_read_with_its_own_defaults_and_builds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from fastreid.modeling import build_model

    cfg = merged(tmp_path / "fork.yml")
    assert dict(cfg.MODEL.LOSSES.AdaSP) == {"SCALE": 0.5, "TEMPERATURE": 0.05, "TYPE": "sp-h"}
    assert "ADASP" not in cfg.MODEL.LOSSES and "CLS_ENABLE" not in cfg.MODEL.HEADS
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "MODEL.LOSSES.ADASP is read as MODEL.LOSSES.AdaSP" in warned[0]
    assert "ClusterContrastHead" in warned[1]
    cfg.merge_from_list(["MODEL.DEVICE", "meta", "MODEL.BACKBONE.PRETRAIN", "False"])
    model = build_model(cfg)
    loss = model.registered_losses["AdaSP"]
    assert (loss.temperature, loss.kind, model.scales) == (0.05, "sp-h", {"AdaSP": 0.5})
    assert not hasattr(model.heads, "weight")


def test_a_head_with_a_classifier_stays_stock(tmp_path: Path) -> None:
    cfg = merged(tmp_path / "fork.yml", classifier=True, keys="TEMP: 0.04")
    assert cfg.MODEL.HEADS.NAME == "EmbeddingHead"
    assert cfg.MODEL.LOSSES.AdaSP.TEMPERATURE == 0.04


def test_pairs_of_the_command_line_change_one_key_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = merged(tmp_path / "fork.yml")
    caplog.clear()
    cfg.merge_from_list(["MODEL.LOSSES.ADASP.SCALE", "0.1", "MODEL.HEADS.CLS_ENABLE", "True"])
    assert dict(cfg.MODEL.LOSSES.AdaSP) == {"SCALE": 0.1, "TEMPERATURE": 0.05, "TYPE": "sp-h"}
    assert cfg.MODEL.HEADS.NAME == "EmbeddingHead"
    assert len(caplog.records) == 2


def test_the_new_key_counts_where_both_are_given_and_neither_input_is_changed() -> None:
    from fastreid.config import CfgNode, get_cfg

    losses = {"ADASP": {"SCALE": 0.5, "TEMP": 0.1}, "AdaSP": {"SCALE": 0.3}}
    given = CfgNode({"MODEL": {"LOSSES": losses}})
    before = given.dump()
    cfg = get_cfg()
    cfg.merge_from_other_cfg(given)
    assert dict(cfg.MODEL.LOSSES.AdaSP) == {"SCALE": 0.3, "TEMPERATURE": 0.1, "TYPE": "adasp"}
    assert given.dump() == before


def test_other_unknown_keys_are_refused_as_ever_and_plain_configs_warn_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from fastreid.config import get_cfg

    with pytest.raises(KeyError, match="MODEL.LOSSES.AdaSP.TMP"):
        merged(tmp_path / "fork.yml", keys="TMP: 0.1")
    caplog.clear()
    get_cfg().merge_from_list(["SOLVER.BASE_LR", "0.1"])
    assert not caplog.records
