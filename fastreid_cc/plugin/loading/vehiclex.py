"""VehicleX, which stock fastreid does not know: rendered vehicles with labels, to train on only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset

from ...data.synthetic import read_market


@DATASET_REGISTRY.register()
class VehicleX(ImageDataset):
    """Reads `<root>/vehiclex/AIC20_ReID_Simulation/image_train/<id>_c<camera>_....jpg`.

    The simulated set of the AI City Challenge 2020, for CC.SOURCES.NAMES. Published counts: 192,150
    images of 1,362 vehicles; no query and no gallery. Identities and cameras are text, as those of
    fastreid's training sets.

    Raises:
        RuntimeError: if the folder is not there.
        ValueError: if it holds no image, or a .jpg of another name.

    Source: Yao et al., Simulating Content Consistent Vehicle Datasets, ECCV 2020.
    """

    dataset_name = "vehiclex"

    def __init__(self, root: str = "datasets", **kwargs: Any) -> None:
        folder = Path(root, "vehiclex", "AIC20_ReID_Simulation", "image_train")
        self.check_before_run([str(folder)])
        train = read_market(folder, self.dataset_name)
        if not train:
            raise ValueError(
                f"VehicleX: {folder} holds no .jpg image; wanted are those of the AI City Challenge"
                " 2020, track 2, simulated: names like 0001_c006_33.jpg."
            )
        super().__init__(train, [], [], **kwargs)
