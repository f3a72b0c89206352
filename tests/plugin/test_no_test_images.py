"""A data set that is named for testing but holds no query images is skipped, not a crash."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_faults import FOLDER, draw_folder
from tiny_runs import build, config

pytestmark = pytest.mark.usefixtures("plugin")


def test_a_folder_without_test_images_is_skipped_in_evaluation(tmp_path: Path) -> None:
    root = draw_folder(tmp_path / "images")
    trainer = build(
        config(
            tmp_path / "out",
            *FOLDER,
            "DATASETS.TESTS",
            '("UnlabeledFolder",)',
            "CC.FOLDER.ROOT",
            root,
            "CC.FOLDER.CAMERA",
            "folder:0",
            "CC.EVAL_BEFORE",
            True,
            "TEST.EVAL_PERIOD",
            1,
        )
    )
    assert trainer.train() == {}
    assert (tmp_path / "out" / "model_final.pth").is_file()
