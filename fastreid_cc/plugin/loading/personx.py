"""PersonX, which stock fastreid does not know: rendered people, 6 cameras, Market-1501 layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset

from ...data.synthetic import read_market


@DATASET_REGISTRY.register()
class PersonX(ImageDataset):
    """Reads `<root>/PersonX/{bounding_box_train,query,bounding_box_test}/<id>_c<camera>....jpg`.

    Published counts: train 9,840 images of 410 people, query 5,136, gallery 30,816.
    Source: Sun and Zheng, Dissecting Person Re-identification, CVPR 2019.
    """

    dataset_name = "personx"

    def __init__(self, root: str = "datasets", **kwargs: Any) -> None:
        parts = ("bounding_box_train", "query", "bounding_box_test")
        train, query, gallery = (Path(root, "PersonX", part) for part in parts)
        self.check_before_run([str(train), str(query), str(gallery)])
        super().__init__(
            read_market(train, self.dataset_name),
            read_market(query),
            read_market(gallery),
            **kwargs,
        )
