"""Config keys: the fixed ones listed here, the parts' ones generated from their constructors.

A part's keyword-only arguments become `<registry key>.<NAME>.<ARGUMENT>`: `DBSCAN(*, eps=0.6)`,
registered as "dbscan", gives `CC.CLUSTER.DBSCAN.EPS 0.6`. A loss keeps its own name and gets a
weight beside its arguments: `MODEL.LOSSES.AdaSP.SCALE`. So a default is written once, beside
the code that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import labeling, losses, memories  # noqa: F401  register
from ..registry import CLUSTERERS, DISTANCES, LOSSES, MEMORIES, NEIGHBORS, REFINERS, Registry
from .docstrings import argument_lines
from .limits import number_faults
from .method_checks import method_faults
from .source_checks import source_faults

REGISTRIES = (NEIGHBORS, DISTANCES, CLUSTERERS, REFINERS, MEMORIES, LOSSES)
STOCK_LOSSES = ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface")

# key below CC -> (default, one line). The order is the order of the help text.
FIXED_KEYS: dict[str, tuple[Any, str]] = {
    "ENABLED": (False, "Train DATASETS.NAMES without their identities. Off: stock fastreid."),
    "SEED": (1, "One seed for weights, augmentation, sampling and clustering."),
    "SEED_STOCK": (False, "Without ENABLED: seed by SEED too, where fastreid seeds by the clock."),
    "REPORT": (False, "Write OUTPUT_DIR/report.html when training ends (images are in it)."),
    "ITERS_PER_EPOCH": (0, "Iterations per epoch; 0 = images // IMS_PER_BATCH. Papers: 200, 400."),
    "EVAL_BEFORE": (False, "Evaluate before the first epoch too (direct transfer)."),
    "SAMPLES_PER_BN": (0, "Images per batch-norm statistic, contiguous chunks; 0 = whole batch."),
    "AMP_DTYPE": ("auto", "With SOLVER.AMP: auto (float16 on CUDA, bfloat16 on a CPU) | bfloat16."),
    "FUSED_OPTIMIZER": (False, "One kernel per optimizer step: on a CPU a fifth of Adam's time."),
    "DIST_TIMEOUT": (720.0, "Minutes that processes wait for the first one to make labels."),
    "SAMPLER.CAMERA_AWARE": ("auto", "K images of a cluster from other cameras: auto | on | off."),
    "SAMPLER.OUTLIERS": (0, "Un-clustered images in a batch, for AverageK.RESCUE."),
    "EXTRACT.IMS_PER_BATCH": (256, "Images per extraction batch of one process."),
    "EXTRACT.FLIP": (False, "Average the features of an image and its mirror image."),
    "EXTRACT.BN": ("running", "Batch norm at extraction: running | camera (one camera at a time)."),
    "LABELS.PERIOD": (1, "Epochs between two labellings."),
    "LABELS.OUTLIERS": ("drop", "Outliers: drop | singleton (a cluster of its own each)."),
    "COLLAPSE.EPS_BOUND": (0.15, "How far eps may be moved when clustering collapses; 0 = never."),
    "COLLAPSE.SHRINK_P": (True, "With fewer clusters than P, train on smaller batches."),
    "COLLAPSE.KEEP_PREVIOUS": (True, "When nothing else helps, train on with the last labels."),
    "NEIGHBORS.NAME": ("exact", "Neighbour search."),
    "DISTANCE.NAME": ("jaccard", "Distance, for clusterers that consume distances."),
    "CLUSTER.NAME": ("dbscan", "Clusterer."),
    "REFINE.NAMES": ((), "Refiners, applied in this order."),
    "MEMORY.NAME": ("cluster", "Memory."),
    "TEACHER.ENABLED": (False, "Keep a mean teacher: an average of the network over its steps."),
    "TEACHER.MOMENTUM": (0.999, "Weight of the old teacher in a step."),
    "TEACHER.RAMP": (True, "Smaller momentum at first: min(MOMENTUM, 1 - 1 / (step + 1))."),
    "TEACHER.USE_FOR_LABELS": (True, "Features for clustering and memory come from the teacher."),
    "TEACHER.EVALUATE": (True, "Evaluation measures the teacher, not the network trained."),
    "TEACHER.OWN_VIEW": (False, "The teacher, or the second network, sees another augmentation."),
    "CAMSTYLE.MODE": ("off", "Target images as other cameras see them: off | folder | statistics."),
    "CAMSTYLE.FOLDER": ("", "Folder of ready-made camera-style images, <stem>_fake_<c>to<c'>.jpg."),
    "CAMSTYLE.IMAGES": (64, "MODE statistics: images measured per camera."),
    "SOURCES.NAMES": ((), "Labelled data sets to learn from beside DATASETS.NAMES, the target."),
    "SOURCES.MODE": ("joint", "joint: sources in every batch | pretrain: before the target only."),
    "SOURCES.PRETRAIN_EPOCHS": (0, "First epochs, on the sources' labels alone."),
    "SOURCES.IMS_PER_BATCH": (64, "Images of each source in a step, beside SOLVER.IMS_PER_BATCH."),
    "SOURCES.NUM_INSTANCE": (4, "Images of a source identity in a step."),
    "SOURCES.LOSSES": (("CrossEntropyLoss", "TripletLoss"), "fastreid's losses, on source images."),
    "SOURCES.IN_MEMORY": (True, "Joint: source classes are rows of the memory, as in SpCL."),
    "SOURCES.WEIGHT": (1.0, "Factor of all losses of source images."),
    "SOURCES.BN": ("shared", "Batch norm: shared | domain (one each) | rectified (with a gate)."),
    "SOURCES.GATE_SCALE": (2.0, "Of the rectified gate; 2 starts at identity, 1 as published."),
    "WARMUP.EPOCHS": (0, "Epochs of instance discrimination before the first clustering."),
    "WARMUP.VIEWS": (4, "Augmented views of an image in a batch, during warm-up."),
    "WARMUP.TEMPERATURE": (0.1, "Temperature during warm-up."),
    "WARMUP.MOMENTUM": (0.2, "Weight of the old row of an image's memory, during warm-up."),
    "WARMUP.COLOR_ROBUST": (True, "Warm up with INPUT.COLOR_ROBUST at full (default) strength."),
    "WARMUP.NEGATIVES": ("same_camera", "Negatives during warm-up: same_camera | all."),
}


def part_node(registry: Registry, name: str) -> str:
    """Key of a part's node, e.g. "CC.CLUSTER.DBSCAN" or "MODEL.LOSSES.AdaSP"."""
    return f"{registry.key}.{name if registry is LOSSES else name.upper()}"


def part_keys(registry: Registry, name: str) -> dict[str, Any]:
    """Full key -> default of one part's parameters; a loss gets SCALE 1.0 in front."""
    node = part_node(registry, name)
    keys: dict[str, Any] = {f"{node}.SCALE": 1.0} if registry is LOSSES else {}
    for argument, default in registry.parameters(name).items():
        keys[f"{node}.{argument.upper()}"] = default
    return keys


def all_keys(extra: dict[str, tuple[Any, str]] | None = None) -> Iterator[tuple[str, Any, str]]:
    """Every key of the plug-in: (full key, default, one line)."""
    for key, (default, line) in FIXED_KEYS.items():
        yield f"CC.{key}", default, line
    for key, (default, line) in (extra or {}).items():
        yield key, default, line
    for registry in REGISTRIES:
        for name in registry.names():
            lines = argument_lines(registry.get(name)) | {"scale": "weight of the loss."}
            for key, default in part_keys(registry, name).items():
                yield key, default, f"{name}: {lines.get(key.split('.')[-1].lower(), '')}"


def add_key(root: Any, key: str, default: Any) -> None:
    """Adds one key to a yacs node, making the nodes on the way; a key that exists stays."""
    node = root
    *path, leaf = key.split(".")
    for step in path:
        if step not in node:
            node[step] = type(root)()
        node = node[step]
    if leaf not in node:
        node[leaf] = default


def get_key(cfg: Any, key: str) -> Any:
    """The value at a full key."""
    node = cfg
    for step in key.split("."):
        node = node[step]
    return node


def build_part(cfg: Any, registry: Registry, name: str) -> Any:
    """Builds a registered part from its config keys.

    Raises:
        KeyError: unknown name, with the known ones.
        ValueError: from the part's constructor, naming the key out of range.
    """
    node = part_node(registry, name)
    arguments = {
        argument: get_key(cfg, f"{node}.{argument.upper()}")
        for argument in registry.parameters(name)
    }
    return registry.get(name)(**arguments)


def loss_scale(cfg: Any, name: str) -> float:
    """Weight of a registered loss."""
    return float(get_key(cfg, f"{part_node(LOSSES, name)}.SCALE"))


def faults(cfg: Any, *, world_size: int = 1) -> list[str]:
    """Everything that is wrong with a label-free config, each with its key; empty when sound.

    Reads no image and builds no network, so it runs before anything slow.
    """
    found = number_faults(cfg)
    _check_batch(cfg, world_size, found)
    _check_schedule(cfg, found)
    _check_choices(cfg, found)
    _check_parts(cfg, found)
    return (
        found
        + method_faults(cfg, world_size)
        + source_faults(cfg, known_losses=STOCK_LOSSES, world_size=world_size)
    )


def validate(cfg: Any, *, world_size: int = 1) -> None:
    """Raises one ValueError that lists all faults of a label-free config."""
    found = faults(cfg, world_size=world_size)
    if found:
        lines = "\n".join(f"  {i}. {fault}" for i, fault in enumerate(found, 1))
        raise ValueError(f"{len(found)} fault(s) in the config:\n{lines}")


def _check_batch(cfg: Any, world_size: int, found: list[str]) -> None:
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    if instances < 1 or batch < 1 or batch % (instances * world_size):
        found.append(
            f"SOLVER.IMS_PER_BATCH={batch} must be a multiple of DATALOADER.NUM_INSTANCE="
            f"{instances} x {world_size} process(es)."
        )
    elif batch // instances < 2:
        found.append(
            f"SOLVER.IMS_PER_BATCH={batch} / DATALOADER.NUM_INSTANCE={instances} leaves one cluster"
            " per batch; at least 2 are needed."
        )
    views = cfg.CC.WARMUP.VIEWS
    if cfg.CC.WARMUP.EPOCHS > 0 and (views < 1 or batch % (views * world_size)):
        found.append(
            f"SOLVER.IMS_PER_BATCH={batch} must be a multiple of CC.WARMUP.VIEWS={views}"
            f" x {world_size} process(es)."
        )
    samples = cfg.CC.SAMPLES_PER_BN
    if samples < 0 or samples == 1:
        found.append(f"CC.SAMPLES_PER_BN={samples} must be 0 (whole batch) or at least 2.")


def _check_schedule(cfg: Any, found: list[str]) -> None:
    solver, cc = cfg.SOLVER, cfg.CC
    if cc.LABELS.PERIOD < 1:
        found.append(f"CC.LABELS.PERIOD={cc.LABELS.PERIOD} must be at least 1.")
    if not 0 <= cc.WARMUP.EPOCHS <= solver.MAX_EPOCH:
        found.append(
            f"CC.WARMUP.EPOCHS={cc.WARMUP.EPOCHS} must lie between 0 and"
            f" SOLVER.MAX_EPOCH={solver.MAX_EPOCH}."
        )
    iters = cc.ITERS_PER_EPOCH
    if iters < 0:
        found.append(f"CC.ITERS_PER_EPOCH={iters} must be 0 (automatic) or positive.")
    elif iters and solver.WARMUP_ITERS >= solver.MAX_EPOCH * iters:
        found.append(
            f"SOLVER.WARMUP_ITERS={solver.WARMUP_ITERS} must be shorter than the training,"
            f" SOLVER.MAX_EPOCH={solver.MAX_EPOCH} x CC.ITERS_PER_EPOCH={iters} iterations."
        )
    if cfg.MODEL.HEADS.NUM_CLASSES != 0 and not cc.SOURCES.NAMES:
        found.append(
            f"MODEL.HEADS.NUM_CLASSES={cfg.MODEL.HEADS.NUM_CLASSES}: without labels the number of"
            " classes is unknown; leave it 0."
        )


def _check_choices(cfg: Any, found: list[str]) -> None:
    for key, choices in (
        ("CC.AMP_DTYPE", ("auto", "bfloat16")),
        ("CC.SAMPLER.CAMERA_AWARE", ("auto", "on", "off")),
        ("CC.EXTRACT.BN", ("running", "camera")),
        ("CC.LABELS.OUTLIERS", ("drop", "singleton")),
        ("CC.WARMUP.NEGATIVES", ("same_camera", "all")),
    ):
        if get_key(cfg, key) not in choices:
            found.append(f"{key}={get_key(cfg, key)!r} must be one of {', '.join(choices)}.")
    if not 0.0 <= cfg.CC.COLLAPSE.EPS_BOUND <= 1.0:
        found.append(f"CC.COLLAPSE.EPS_BOUND={cfg.CC.COLLAPSE.EPS_BOUND} must lie in [0, 1].")
    if not cfg.DATASETS.NAMES:
        found.append("DATASETS.NAMES is empty; name the data set to learn from.")


def _check_parts(cfg: Any, found: list[str]) -> None:
    chosen = [
        (NEIGHBORS, cfg.CC.NEIGHBORS.NAME),
        (CLUSTERERS, cfg.CC.CLUSTER.NAME),
        (MEMORIES, cfg.CC.MEMORY.NAME),
    ]
    chosen += [(REFINERS, name) for name in cfg.CC.REFINE.NAMES]
    if (
        cfg.CC.CLUSTER.NAME in CLUSTERERS
        and CLUSTERERS.get(cfg.CC.CLUSTER.NAME).consumes == "distances"  # type: ignore[attr-defined]
    ):
        chosen.append((DISTANCES, cfg.CC.DISTANCE.NAME))
    for name in cfg.MODEL.LOSSES.NAME:
        if name not in STOCK_LOSSES:
            chosen.append((LOSSES, name))
    for registry, name in chosen:
        try:
            build_part(cfg, registry, name)
        except (KeyError, ValueError, ImportError) as error:
            found.append(str(error.args[0]) if error.args else str(error))
        except (RuntimeError, MemoryError, OverflowError) as error:  # too large to be built
            found.append(f"{part_node(registry, name)} cannot be built: {str(error)[:200]}")
    if set(cfg.MODEL.LOSSES.NAME) <= set(STOCK_LOSSES):
        found.append(
            f"MODEL.LOSSES.NAME={tuple(cfg.MODEL.LOSSES.NAME)} holds no loss of this plug-in;"
            " label-free training needs one, e.g. MemoryContrast. Known:"
            f" {', '.join(LOSSES.names())}."
        )
    if "CrossEntropyLoss" in cfg.MODEL.LOSSES.NAME:
        found.append(
            "MODEL.LOSSES.NAME holds CrossEntropyLoss, which needs a classifier and identities;"
            " without labels use MemoryContrast. For labelled sources it goes to CC.SOURCES.LOSSES."
        )
