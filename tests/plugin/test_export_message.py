"""What `export` says where torch's exporter gives up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.mark.parametrize(("version", "is_old"), [("2.6.0+cu124", True), ("2.15.0", False)])
def test_an_exporter_that_gives_up_is_one_plain_message(
    plugin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_old: bool
) -> None:
    """Torch colours its message, asks for an issue, and says nothing of its age."""
    pytest.importorskip("onnx")
    from fastreid_cc.errors import ClearError
    from fastreid_cc.plugin.offline import onnx_export

    def give_up(*_: Any, **__: Any) -> None:
        text = "Failed to decompose the graph. \x1b[96mThis is step 2/3\x1b[0m\n - Create an issue"
        raise RuntimeError(text)

    monkeypatch.setattr(torch.onnx, "export", give_up)
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(ClearError) as caught:
        onnx_export.write_onnx(
            onnx_export.Embedder(torch.nn.Identity()), tmp_path / "model.onnx", size=(8, 4)
        )
    told = str(caught.value)
    first = f"torch {version} cannot export this network: Failed to decompose the graph."
    assert told.splitlines()[0] == first
    assert ("Make an environment with a newer one" in told) == is_old and "\x1b" not in told
