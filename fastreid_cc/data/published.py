"""What the public data sets should hold, and what a folder holds: counts of images, no pixel read.

Only names are counted, in the way fastreid's own data sets list them, so a wrong version or an
unfinished copy is seen before training. Counts are those of the authors' publications.
"""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path

Counts = tuple[int, int, int]


@dataclass(frozen=True)
class Published:
    """A public data set: where it lies below FASTREID_DATASETS and how many images it has.

    Args:
        name: as in DATASETS.NAMES.
        folder: below FASTREID_DATASETS.
        parts: train, query and gallery: sub-folders of .jpg files, or .txt lists of images.
        counts: published numbers of images of the three.
        note: what else one should know when it is found.
        junk: prefix of the names that are not counted.
    """

    name: str
    folder: str
    parts: tuple[str, str, str]
    counts: Counts
    note: str = ""
    junk: str = ""

    def count(self, root: str | os.PathLike[str]) -> Counts | None:
        """Images of train, query and gallery below `root`; None if the folder is not there."""
        base = Path(root, self.folder)
        if not base.is_dir():
            return None
        train, query, gallery = (_count(base / part, self.junk) for part in self.parts)
        return train, query, gallery


def _count(part: Path, junk: str) -> int:
    """Lines of a list, or .jpg files of a folder; 0 if it cannot be read."""
    try:
        if part.suffix == ".txt":
            with part.open("rb") as lines:
                return sum(1 for line in lines if line.strip())
        images = fnmatch.filter(os.listdir(part), "*.jpg")
        return sum(1 for name in images if not (junk and name.startswith(junk)))
    except OSError:
        return 0


_MARKET = ("bounding_box_train", "query", "bounding_box_test")
_LISTS = ("list_train.txt", "list_query.txt", "list_gallery.txt")
_MSMT = (30248, 11659, 82161)  # and 2,373 of list_val.txt, which papers count as training images
_V1 = "fastreid trains on list_train.txt; with list_val.txt (2,373) it is the papers' 32,621"
_V2 = (
    "faces are masked; published figures are mostly of V1, which fastreid prefers if both lie there"
)
_IMAGES = ("image_train", "image_query", "image_test")
_VEHICLEX = "rendered, for CC.SOURCES.NAMES: it has no test images"
_VERI = "some copies have 37,746 training images"

PUBLISHED = (
    Published("Market1501", "Market-1501-v15.09.15", _MARKET, (12936, 3368, 15913), junk="-1"),
    Published("MSMT17", "MSMT17_V1", _LISTS, _MSMT, _V1),
    Published("MSMT17", "MSMT17_V2", _LISTS, _MSMT, _V2),
    Published("DukeMTMC", "DukeMTMC-reID", _MARKET, (16522, 2228, 17661)),
    Published("VeRi", "veri", _IMAGES, (37778, 1678, 11579), _VERI),
    Published("VehicleX", "vehiclex/AIC20_ReID_Simulation", _IMAGES, (192150, 0, 0), _VEHICLEX),
    Published("PersonX", "PersonX", _MARKET, (9840, 5136, 30816)),
)
