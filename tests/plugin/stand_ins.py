"""What a reader of the docs has: images, checkpoints and finished runs, as generated stand-ins.

`THINGS` maps a name that a page uses to what makes it. A page that names something new adds a line.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_data import make_market


def draw(path: Path, person: int, seed: int) -> None:
    """An image of a person's colours with noise, 16 x 32."""
    rng = np.random.default_rng([person, seed])
    halves = np.random.default_rng(person).integers(30, 226, (2, 1, 3)).repeat(16, 0)
    pixels = halves + rng.integers(-25, 26, (32, 16, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def draw_all(folder: Path, names: Iterable[tuple[str, int]]) -> None:
    """Files of a folder, each with the number of who is on it."""
    for seed, (name, person) in enumerate(names):
        draw(folder / name, person, seed)


def data_sets(root: Path) -> None:
    """Below FASTREID_DATASETS: public data sets in their layouts, a few dozen images each."""
    make_market(root, size=(16, 32))
    shutil.copytree(root / "Market-1501-v15.09.15", root / "DukeMTMC-reID")
    for part, people in (("train", range(6)), ("query", (6, 7)), ("test", (6, 7))):
        shots = range(1 if part == "query" else 3)
        names = [(f"{p + 1:04d}_c{c:03d}_{s:08d}_0.jpg", p)
                 for p in people for c in (1, 2) for s in shots]  # fmt: skip
        draw_all(root / "veri" / f"image_{part}", names)
    lists: dict[str, list[str]] = {}
    for part, people in (
        ("train", range(6)),
        ("val", (0,)),
        ("query", (6, 7)),
        ("gallery", (6, 7)),
    ):
        folder = "train" if part in ("train", "val") else "test"
        for p in people:
            for c in (1, 2):
                name = f"{p:04d}/{p:04d}_{c:03d}_{c:02d}_0303morning_{part}_0.jpg"
                draw(root / "MSMT17_V1" / folder / name, p, c)
                lists.setdefault(part, []).append(f"{name} {p}")
    for part, lines in lists.items():
        (root / "MSMT17_V1" / f"list_{part}.txt").write_text("\n".join(lines) + "\n")
    draw_all(root / "shop", [(f"{p:02d}/{c}_{s}.jpg", p)
                             for p in range(6) for c in "ab" for s in range(3)])  # fmt: skip


def crops(path: Path) -> None:
    """<person>/<camera>_<shot>.png of six people to learn from and three to measure."""
    people = (*range(40, 46), 65, 70, 100)
    draw_all(path, [(f"{p:03d}/{c:02d}_{s}.png", p)
                    for p in people for c in (1, 2) for s in range(3)])  # fmt: skip


def labelled(path: Path) -> None:
    """<person>/x_c<camera>_<shot>.png of six people."""
    draw_all(path, [(f"{p:03d}/x_c{c}_{s}.png", p)
                    for p in range(80, 86) for c in (1, 2) for s in range(3)])  # fmt: skip


def unlabelled(path: Path) -> None:
    """x<number>_c<camera>_<shot>.png of six others."""
    draw_all(path, [(f"x{p}_c{c}_{s}.png", p)
                    for p in range(90, 96) for c in (1, 2) for s in range(3)])  # fmt: skip


def turning_objects(path: Path) -> None:
    """obj<number>__<angle>.png, as COIL-20 names them."""
    draw_all(path, [(f"obj{o}__{a}.png", o) for o in range(1, 11) for a in range(0, 72, 12)])


def weights(path: Path) -> None:
    """Weights of an OSNet x0.25, as fast-reid's own backbone holds them."""
    import torch

    import fastreid_cc.plugin  # noqa: F401  isort: skip
    from fastreid.config import get_cfg
    from fastreid.modeling.backbones import build_backbone

    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH = "build_osnet_backbone", "x0_25"
    torch.manual_seed(3)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(build_backbone(cfg).state_dict(), path)


def by_domain(path: Path) -> None:
    """A checkpoint with a batch norm for each of three domains."""
    import torch

    from fastreid_cc.networks.domain_batch_norm import Domains, convert

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    model = convert(network, Domains(("target", "one", "two")))
    torch.save({"model": model.state_dict()}, path)


def features(path: Path) -> None:
    """Eight clusters of ten."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 1, 16)) + 0.1 * rng.normal(size=(8, 10, 16))
    np.save(path, centres.reshape(80, 16).astype(np.float32))


def network(path: Path) -> None:
    """An ONNX file with the names and shapes of `export`'s: the mean colour of an image."""
    from onnx import TensorProto, helper, save

    pooled = helper.make_node("GlobalAveragePool", ["images"], ["pooled"])
    flat = helper.make_node("Flatten", ["pooled"], ["features"])
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 16])
    found = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([pooled, flat], "mean", [images], [found])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, path)


def photos(path: Path) -> None:
    """Images without rules in their names."""
    draw_all(path, [(f"DSC_{n:04d}.jpg", n // 4) for n in range(24)])


def config(path: Path) -> None:
    """A YAML of one's own over a shipped one."""
    path.write_text("_BASE_: fastreid_cc://Market1501/cc_R50.yml\nOUTPUT_DIR: logs/mine\n")


#: Name in the docs -> what makes it. Runs below logs/ and outputs/ are copies of a tiny one.
def key_points(path: Path) -> None:
    """Poses of generated people."""
    from fastreid_cc.data.poses import write_coco
    from fastreid_cc.data.synthetic import SyntheticOptions, synthetic_poses

    options = SyntheticOptions(train_ids=6, test_ids=0, images_per_camera=1)
    write_coco(path, [(f"{stem}.jpg", pose) for stem, pose in synthetic_poses(options).items()])


THINGS: dict[str, Callable[[Path], None]] = {
    "/data/my_crops": crops,
    "/data/coil20": turning_objects,
    "/data/labelled": labelled,
    "/data/unlabelled": unlabelled,
    "photos": photos,
    "features.npy": features,
    "model.onnx": network,
    "my_checkpoint.pth": weights,
    "osnet_x0_25_msmt17.pth": weights,
    "clip_vit_b16.pth": weights,
    "CONFIG.yml": config,
    "keypoints.json": key_points,
}
