"""Times a step, an extraction, an epoch and the loader beside what they are to be compared with.

    python benchmarks/speed.py [step extraction epoch loader] [--threads 1] [--repeat 7] [--small]
    python benchmarks/speed.py denormals --weights WEIGHTS

step        ResNet-50, 128x64, batch 32: ours in each format that the processor has, a plain loop
            over the same network, and the published procedure in float32 (losses and memory
            re-derived from its formulas)
extraction  ResNet-50 128x64 and OSNet x0.25 256x128, by images: ours in each format, the published
            procedure (float32, features kept image by image), the bare forward pass
epoch       a label-free epoch without its labels, beside fastreid's own with true labels: same
            images, network, losses of as many steps
loader      images a second of one worker at 256x128, beside decoding and the same transforms of
            torchvision; and what it costs to start an epoch's workers
denormals   OSNet x0.25 256x128 with trained WEIGHTS and with random ones, by CC.FLUSH_DENORMALS

All rows of a part are taken in turn, `--repeat` times; medians, and ratios within the part. The
published procedure has a process of its own, with the memory that a process has by default, before
(ours: CC.KEEP_FREED_MEMORY, CC.FLUSH_DENORMALS). Nothing else may run on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import gpu  # activates the plug-in
import numpy as np
import torch
from fastreid.config import get_cfg
from fastreid.data.build import _root
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.transforms import build_transforms
from fastreid.engine import DefaultTrainer
from fastreid.modeling import build_model
from fastreid.utils.events import EventStorage
from PIL import Image
from tabulate import tabulate
from torch.nn import functional as F

from fastreid_cc.parallel.processor import has_bfloat16_units
from fastreid_cc.plugin.loading.dataset import ContrastDataset, build_loader
from fastreid_cc.plugin.loading.datasets import configure_from
from fastreid_cc.plugin.loading.extract import extract_features

Work = dict[str, Callable[[], Any]]
LAST = ("MODEL.BACKBONE.CHANNELS_LAST", "True")
FILTERED = (*LAST, "MODEL.BACKBONE.WINOGRAD", "True")
STOCK = ("CC.KEEP_FREED_MEMORY", "False", "CC.FLUSH_DENORMALS", "False")
LOW = ("SOLVER.AMP.ENABLED", "True", "TEST.AMP", "True")
COMPILED = ("MODEL.BACKBONE.COMPILE", "inductor")


def medians(work: Work, repeat: int) -> dict[str, float]:
    """Seconds of each, all in turn; the first turn is not counted."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn, (name, call) in itertools.product(range(repeat + 1), work.items()):
        start = time.perf_counter()
        call()
        if turn:
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(found)) for name, found in times.items()}


def formats(compiled: bool = False) -> dict[str, tuple[str, ...]]:
    """Name -> config pairs of the formats that this processor has; the last one compiled too."""
    found: dict[str, tuple[str, ...]] = {"float32": (), "float32, channels last": LAST}
    found["float32, channels last, Winograd"] = FILTERED
    if has_bfloat16_units(torch.device("cpu")):
        found |= {"bfloat16": LOW, "bfloat16, channels last": (*LOW, *LAST)}
    if compiled:
        name, pairs = list(found.items())[-1]
        found[f"{name}, compiled"] = (*pairs, *COMPILED)
    return found


def table(title: str, seconds: dict[str, float], unit: float, name: str, *against: str) -> None:
    """Prints a part's medians and their ratios to some of its rows."""
    rows = [
        [row, f"{unit * took:.4g}", *(f"{took / seconds[other]:.3f}" for other in against)]
        for row, took in seconds.items()
    ]
    print(f"\n{title}\n")
    heads = ["", name, *(f"over: {other}" for other in against)]
    print(tabulate(rows, heads, tablefmt="github", disable_numparse=True), flush=True)


def alone(part: str, args: argparse.Namespace) -> dict[str, float]:
    """Seconds of a part's published procedures, taken by a process of their own."""
    line = [sys.executable, __file__, part, "--published", "--threads", str(args.threads)]
    line += ["--repeat", str(args.repeat), *(["--small"] if args.small else [])]
    ended = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def step(args: argparse.Namespace) -> dict[str, float]:
    """One training step."""
    size = "[32,16]" if args.small else "[128,64]"
    settings = ["SOLVER.IMS_PER_BATCH", "32", "INPUT.SIZE_TRAIN", size]

    def trainer(*pairs: str) -> tuple[Any, torch.Tensor]:
        cfg = gpu.recipe("cc_R50", "cpu", args.small)
        cfg.merge_from_list([*settings, "SOLVER.AMP.ENABLED", "False", *pairs])
        one = gpu.trainer_of(cfg, "cpu", False, 700)
        return one, one.model.step.memory.rows.clone()

    if args.published:
        one, rows = trainer(*STOCK)
        with EventStorage():
            return medians({"published": lambda: gpu.loop(one, rows, True, "cpu")}, args.repeat)
    found = alone("step", args)
    work: Work = {}
    for name, pairs in formats(compiled=True).items():
        one, rows = trainer(*pairs)
        work[f"ours, {name}"] = lambda one=one: gpu.ours(one)
        work[f"plain loop, {name}"] = lambda one=one, rows=rows: gpu.loop(one, rows, False, "cpu")
    with EventStorage():
        found |= medians(work, args.repeat)
    table("Step, ResNet-50, 128x64, batch 32", found, 1e3, "ms", "published", "ours, float32")
    for name in formats(compiled=True):
        ratio = found[f"ours, {name}"] / found[f"plain loop, {name}"]
        print(f"{name}: {ratio:.3f} of a plain loop")
    return found


def extraction(args: argparse.Namespace) -> dict[str, float]:
    """Features of images, without reading them twice."""
    every = {} if args.published else alone("extraction", args)
    for backbone, depth, size, shape in (
        ("build_resnet_backbone", "50x", 2048, (128, 64)),
        ("build_osnet_backbone", "x0_25", 128, (256, 128)),
    ):
        count = 32 if args.small else 256
        images = gallery(count)
        settings = ["MODEL.BACKBONE.NAME", backbone, "MODEL.BACKBONE.DEPTH", depth]
        settings += ["MODEL.BACKBONE.FEAT_DIM", str(size), "INPUT.SIZE_TEST", str(list(shape))]
        settings += ["CC.EXTRACT.IMS_PER_BATCH", "64", "DATALOADER.NUM_WORKERS", "0"]
        settings += ["MODEL.BACKBONE.WITH_IBN", "False", "MODEL.BACKBONE.WITH_NL", "False"]
        work: Work = {}
        for name, pairs in ({"published": STOCK} if args.published else formats()).items():
            cfg = gpu.recipe("cc_R50", "cpu", False)
            cfg.merge_from_list([*settings, *pairs])
            model = build_model(cfg).eval()
            pixels = torch.randn(64, 3, *shape)
            if args.published:
                work[name] = partial(published, cfg, model, images)
                continue
            work[f"ours, {name}"] = partial(extract_features, cfg, model, images)
            work[f"bare forward, {name}"] = partial(forward, model, pixels, count)
        seconds = {name: took / count for name, took in medians(work, args.repeat).items()}
        network = f"{backbone.split('_')[1]} {depth}, {shape[0]}x{shape[1]}"
        if args.published:
            every[network] = seconds["published"]
            continue
        found = {"published": every[network], **seconds}
        table(f"Extraction, {network}", found, 1e3, "ms an image", "published")
    return every


def gallery(count: int) -> Any:
    """Paths of generated images with one camera, each as often as needed."""
    cfg = gpu.recipe("cc_R50", "cpu", False)
    configure_from(cfg)
    data = DATASET_REGISTRY.get("SyntheticReID")(root=_root)
    paths = list(itertools.islice(itertools.cycle(item[0] for item in data.train), count))
    return SimpleNamespace(paths=paths, cameras=np.zeros(count, np.int64))


@torch.no_grad()
def forward(model: Any, pixels: torch.Tensor, count: int) -> None:
    """The backbone and nothing else, of as many images."""
    for _ in range(count // len(pixels) or 1):
        model.backbone(pixels)


@torch.no_grad()
def published(cfg: Any, model: Any, images: Any) -> torch.Tensor:
    """Features image by image into a dictionary, then stacked by name."""
    transform, found = build_transforms(cfg, is_train=False), {}
    for at in range(0, len(images.paths), cfg.CC.EXTRACT.IMS_PER_BATCH):
        part = images.paths[at : at + cfg.CC.EXTRACT.IMS_PER_BATCH]
        pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in part])
        for place, feature in enumerate(model({"images": pixels, "for_memory": True}).cpu()):
            found[at + place] = feature
    return F.normalize(torch.stack([found[at] for at in range(len(images.paths))]))


def epoch(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of an epoch of the demo, with pseudo-labels (without making them) and with true."""
    steps = 6 if args.small else 40

    def train(name: str, folder: str) -> float:
        cfg = get_cfg()
        cfg.merge_from_file(f"demo/{name}")
        pairs = ["OUTPUT_DIR", folder, "MODEL.DEVICE", "cpu", "DATASETS.TESTS", "()"]
        pairs += ["SOLVER.MAX_EPOCH", "1", "CC.WARMUP.EPOCHS", "0", "SOLVER.WARMUP_ITERS", "0"]
        pairs += ["CC.COLLAPSE.EPS_BOUND", "0.5", "CC.COMPARE_IMAGES", "0", "CC.REPORT", "False"]
        pairs += ["SOLVER.CHECKPOINT_PERIOD", "99", "CC.ITERS_PER_EPOCH", str(steps)]
        cfg.merge_from_list(pairs)
        trainer = DefaultTrainer(cfg)
        marks: list[float] = []
        run_step = trainer._trainer.run_step

        def timed() -> None:
            run_step()
            marks.append(time.perf_counter())
            if len(marks) == steps:
                raise KeyboardInterrupt  # fastreid's epoch with labels has steps of its own number

        trainer._trainer.run_step = timed
        try:
            trainer.train()
        except KeyboardInterrupt:
            pass
        return (marks[-1] - marks[0]) / (len(marks) - 1)

    times: dict[str, list[float]] = {"label-free": [], "supervised": []}
    for _ in range(max(1, args.repeat // 3)):
        for name, config in (("label-free", "label_free"), ("supervised", "supervised")):
            with tempfile.TemporaryDirectory() as folder:
                times[name].append(train(config, folder))
    found = {name: float(np.median(part)) for name, part in times.items()}
    table(f"{steps} steps of the demo's epoch", found, 1e3, "ms a step", "supervised")
    return found


def loader(args: argparse.Namespace) -> dict[str, float]:
    """Images a second of one worker."""
    from torchvision import transforms as T

    cfg = gpu.recipe("cc_R50", "cpu", False)
    cfg.merge_from_list(["INPUT.SIZE_TRAIN", "[256,128]"])
    count = 64 if args.small else 1024
    images = gallery(count)
    folder = tempfile.TemporaryDirectory()
    paths = []
    for number, path in enumerate(images.paths):  # the layout of a benchmark: JPEG, 128x64
        paths.append(f"{folder.name}/{number}.jpg")
        Image.open(path).convert("RGB").resize((64, 128)).save(paths[-1], quality=90)
    batches = list(np.arange(count).reshape(-1, 32))
    dataset = ContrastDataset(
        paths, images.cameras, np.zeros(count, np.int64), build_transforms(cfg), (1, 0)
    )
    bare = T.Compose(
        [
            T.Resize((256, 128), interpolation=T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(),
            T.Pad(10),
            T.RandomCrop((256, 128)),
            T.PILToTensor(),
            T.Lambda(lambda pixels: pixels.float()),
            T.RandomErasing(scale=(0.02, 0.4)),
        ]
    )

    def plain() -> None:
        for batch in batches:
            torch.stack([bare(Image.open(paths[row]).convert("RGB")) for row in batch])

    def ours(workers: int, some: list[np.ndarray]) -> None:
        for _ in build_loader(dataset, some, workers):
            pass

    work: Work = {
        "ours, in the process": lambda: ours(0, batches),
        "ours, one worker": lambda: ours(1, batches),
        "the same images three times": lambda: ours(1, batches * 3),
        "torchvision, bare": plain,
        "starting 4 workers, one batch": lambda: ours(4, batches[:4]),
        "the same batches in the process": lambda: ours(0, batches[:4]),
    }
    found = medians(work, args.repeat)
    speeds = {name: count / found[name] for name in list(work)[:2]}
    running = found["the same images three times"] - found["ours, one worker"]
    speeds["ours, one worker once it runs"] = 2 * count / running
    speeds["torchvision, bare"] = count / found["torchvision, bare"]
    rows = [[n, f"{v:.0f}", f"{v / speeds['torchvision, bare']:.2f}"] for n, v in speeds.items()]
    print("\nLoader, 256x128\n")
    print(tabulate(rows, ["", "images/s", "over bare"], tablefmt="github", disable_numparse=True))
    for name in list(work)[4:]:
        print(f"{name}: {found[name]:.3f} s")
    folder.cleanup()
    return found


def denormals(args: argparse.Namespace) -> dict[str, float]:
    """Passes of an OSNet in training and in evaluation, numbers below 1.2e-38 kept or flushed."""
    cfg = get_cfg()
    cfg.merge_from_file("OwnImages/cc_osnet_x0_25")
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", "False"])
    shape = (8, 3, 64, 32) if args.small else (64, 3, 256, 128)
    images, work = torch.randn(shape, generator=torch.Generator().manual_seed(0)), {}

    def turn(backbone: Any, flush: bool, learn: bool) -> None:
        torch.set_flush_denormal(flush)  # of this thread
        with torch.set_grad_enabled(learn):
            found = backbone.train(learn)(images)
            if learn:
                found.mean().backward()

    for weights in ("random", *([args.weights] if args.weights else [])):
        if weights != "random":
            cfg.merge_from_list(["MODEL.BACKBONE.PRETRAIN", "True"])
            cfg.MODEL.BACKBONE.PRETRAIN_PATH = weights
        backbone = build_model(cfg).backbone
        for learn, flush in itertools.product((False, True), (False, True)):
            name = "forward and backward" if learn else "forward"
            text = f"{name}, {'random' if weights == 'random' else 'trained'} weights, "
            text += "flushed" if flush else "kept"
            work[text] = partial(turn, backbone, flush, learn)
    found = medians(work, args.repeat)
    table(f"OSNet x0.25, {' x '.join(map(str, shape))}", found, 1e3, "ms", *list(found)[:1])
    return found


PARTS = {part.__name__: part for part in (step, extraction, epoch, loader, denormals)}


def arguments(text: str, parts: Work, repeat: int) -> argparse.Namespace:
    """The command line of a benchmark in parts; sets the threads."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts) + "; all")
    parser.add_argument("--threads", type=int, default=1, help="of torch; 1")
    parser.add_argument("--repeat", type=int, default=repeat, help=f"turns that count; {repeat}")
    parser.add_argument("--small", action="store_true", help="sizes of seconds: tries the command")
    parser.add_argument("--weights", default="", help="of an OSNet x0.25, for denormals")
    parser.add_argument("--published", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    torch.set_num_threads(args.threads)
    return args


def main() -> None:
    """Runs the parts."""
    args = arguments(__doc__ or "", PARTS, repeat=7)
    if args.published:
        print(json.dumps(PARTS[args.parts[0]](args)))
        return
    units = "with" if has_bfloat16_units(torch.device("cpu")) else "without"
    print(
        f"torch {torch.__version__}, {args.threads} thread(s), a processor {units} bfloat16 units"
    )
    for name in args.parts or PARTS:
        PARTS[name](args)


if __name__ == "__main__":
    main()
