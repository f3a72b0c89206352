"""Registers the synthetic sets and UnlabeledFolder as fastreid data sets.

fastreid builds a data set from its root alone, so options cannot travel in the call. They are held
here and set from the config by `configure_from(cfg)` before a loader is built.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset
from fastreid.utils.logger import log_first_n

from ...config import from_config
from ...data.folder import FolderItems
from ...data.naming import FolderOptions
from ...data.synthetic import StyledOptions, SyntheticOptions, build_synthetic, read_market
from ...errors import BadConfig, MissingData, printable
from ...registry import Part

#: Options of a data set, from the config node of the same name in capitals under CC.
OPTIONS: dict[str, type[Part]] = {"synthetic": SyntheticOptions, "folder": FolderOptions}

_current: dict[str, Any] = {"draw": True, **{name: cls() for name, cls in OPTIONS.items()}}


def configure(**options: SyntheticOptions | FolderOptions) -> None:
    """Sets what the next data set is built from, e.g. `configure(folder=FolderOptions(root="x"))`.

    Args:
        options: `synthetic` and `folder`; one not named stays as it is.
    """
    for name, value in options.items():
        expected = OPTIONS[name]
        if not isinstance(value, expected):
            raise TypeError(f"{name} must be a {expected.__name__}, got {type(value).__name__}")
        _current[name] = value


def configure_from(cfg: Any, *, draw: bool = True) -> None:
    """Reads cfg.CC.SYNTHETIC and cfg.CC.FOLDER.

    Args:
        cfg: the config.
        draw: False = a synthetic set that has not been drawn yet is an error, nothing is written.

    Raises:
        BadConfig: all faults of a node at once, with the full key.
    """
    try:
        _current.update({name: from_config(cfg, cls) for name, cls in OPTIONS.items()})
    except ValueError as error:
        raise BadConfig(str(error)) from error
    _current["draw"] = draw


def current(name: str) -> Any:
    """The options that the next data set is built from, by the key of `OPTIONS`."""
    return _current[name]


class SyntheticReID(ImageDataset):
    """Synthetic pedestrians in Market-1501 layout, drawn on first use below `root`.

    Train identities and cameras are strings ("synthetic_1"), as in fastreid's own sets. The options
    are those of `configure`.
    """

    dataset_name = "synthetic"
    look = ""

    def __init__(self, root: str = "datasets", **kwargs: Any) -> None:
        options = _current["synthetic"]
        if self.look:
            options = StyledOptions.beside(options, self.look)
        place = Path(root, options.folder)
        if not _current["draw"] and not place.is_dir():
            raise MissingData(
                f"{type(self).__name__}: the run's images are not in"
                f" {printable(os.path.abspath(place))}.\nThey are looked for below"
                " FASTREID_DATASETS: set it as in the training, or correct CC.SYNTHETIC."
            )
        self.dataset_dir = build_synthetic(root, options)
        super().__init__(
            read_market(Path(self.dataset_dir, "bounding_box_train"), self.dataset_name),
            read_market(Path(self.dataset_dir, "query")),
            read_market(Path(self.dataset_dir, "bounding_box_test")),
            **kwargs,
        )


class SyntheticSource(SyntheticReID):
    """Other people, seen by other cameras in another style, as many as in SyntheticReID.

    Sharp, bright pictures from the front, as of rendered people: a labelled source that a network
    transfers badly from.
    """

    dataset_name = "synthetic_source"
    look = "studio"


class SyntheticSource2(SyntheticReID):
    """A second source: dim, coarse and noisy pictures of people in dark clothes."""

    dataset_name = "synthetic_source2"
    look = "dusk"


class UnlabeledFolder(ImageDataset):
    """The images of a folder tree; see `fastreid_cc.data.folder` and the CC.FOLDER keys."""

    dataset_name = "folder"

    def __init__(self, root: str = "datasets", **kwargs: Any) -> None:
        listed = FolderItems(_current["folder"], os.path.abspath(root))
        self.dataset_dir, self.tracks = listed.root, listed.tracks
        self.camera_of = listed.camera_of
        if listed.protocol:  # once, however often the set is built
            log_first_n(logging.INFO, listed.protocol, name="fastreid.cc.data", key="message")
        super().__init__(listed.train, listed.query, listed.gallery, **kwargs)


def register() -> None:
    """Adds the data sets to fastreid's registry; a second call does nothing."""
    for cls in (SyntheticReID, SyntheticSource, SyntheticSource2, UnlabeledFolder):
        if cls.__name__ not in DATASET_REGISTRY._obj_map:
            DATASET_REGISTRY.register(cls)


register()
