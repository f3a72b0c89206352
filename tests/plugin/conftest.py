"""Fixtures of the tests that train: one folder for data sets, one thread, a quiet logger after."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_runs import plugin_at

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where synthetic images are drawn, once for all tests."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture
def plugin(data_root: Path) -> Iterator[None]:
    """The plug-in is active, and fastreid looks for data sets below `data_root`."""
    with plugin_at(data_root):
        yield


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that a test calls in this process says to its children what to import."""
    monkeypatch.setenv("FASTREID_CC_IMPORT", os.environ.get("FASTREID_CC_IMPORT", ""))
    if not os.environ["FASTREID_CC_IMPORT"]:
        monkeypatch.delenv("FASTREID_CC_IMPORT")


@pytest.fixture(autouse=True)
def stock_logger() -> Iterator[None]:
    """Undoes what fastreid's `setup_logger` does to the logger, so that caplog hears it."""
    logger = logging.getLogger("fastreid")
    before = logger.propagate, logger.level, list(logger.handlers)
    logger.propagate = True
    logger.setLevel(logging.DEBUG)
    logger.handlers.clear()
    yield
    logger.propagate, logger.level = before[:2]
    logger.handlers[:] = before[2]
