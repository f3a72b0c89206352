"""Config keys of the training itself: those that are no argument of a registered part."""

from __future__ import annotations

from ..data.augment import ColorRobust
from ..data.camera_style import StyleStatistics
from ..data.naming import FolderOptions
from ..data.synthetic import SyntheticOptions
from ..networks.domain_fusion import DomainFusion
from ..networks.mean_teacher import MeanTeacher
from ..registry import CLUSTERERS, DISTANCES, LOSSES, MEMORIES, NEIGHBORS, REFINERS
from .signatures import STOCK_LOSSES, Key, argument_keys

#: Full key -> default, help, limits.
FIXED_KEYS: dict[str, Key] = {
    "CC.ENABLED": Key(False, "Train DATASETS.NAMES without identities. Off: stock fastreid."),
    "CC.SEED": Key(
        1, "One seed for weights, augmentation, sampling, clustering.", "[0, 4294967295]"
    ),
    "CC.SEED_SUPERVISED": Key(
        False, "Without CC.ENABLED: seed by CC.SEED too, where fastreid seeds by the clock."
    ),
    "CC.REPORT": Key(False, "Write OUTPUT_DIR/report.html, with images, when training ends."),
    "CC.ITERS_PER_EPOCH": Key(
        0, "Steps per epoch; 0 = images // SOLVER.IMS_PER_BATCH. Papers: 200, 400.", "[0, inf)"
    ),
    "CC.EVAL_BEFORE": Key(False, "Evaluate before the first epoch too (direct transfer)."),
    "CC.SAMPLES_PER_BN": Key(
        0,
        "Images of a batch that share a batch-norm statistic; 0 = all of them.",
        "0 or [2, inf)",
    ),
    "CC.AMP_DTYPE": Key(
        "auto",
        "Number format with SOLVER.AMP; auto is float16 on CUDA, bfloat16 on a CPU.",
        ("auto", "bfloat16"),
    ),
    "CC.FUSED_OPTIMIZER": Key(
        False, "One kernel per optimizer step: takes a fifth of Adam's time on a CPU."
    ),
    "CC.LABEL_TIMEOUT_MINUTES": Key(
        720.0, "Minutes that processes wait for the first one to make labels.", "(0, 1e6]"
    ),
    "CC.SAMPLER.CAMERA_AWARE": Key(
        "auto",
        "Draw the images of a cluster from different cameras; auto: if there is more than one.",
        ("auto", "on", "off"),
    ),
    "CC.SAMPLER.OUTLIERS_PER_BATCH": Key(
        0, "Outliers in a batch, for AverageK.RESCUE.", "[0, inf)"
    ),
    "CC.EXTRACT.IMS_PER_BATCH": Key(256, "Images per extraction batch of a process.", "[1, inf)"),
    "CC.EXTRACT.FLIP": Key(False, "Average the features of an image and its mirror image."),
    "CC.EXTRACT.BN": Key(
        "running",
        "Batch-norm statistics at extraction: those of training, or of one camera at a time.",
        ("running", "camera"),
    ),
    "CC.LABELS.PERIOD": Key(1, "Epochs between two labellings.", "[1, inf)"),
    "CC.LABELS.OUTLIERS": Key(
        "drop",
        "Images without a cluster are left out, or are each a cluster of its own.",
        ("drop", "singleton"),
    ),
    "CC.COLLAPSE.EPS_BOUND": Key(
        0.15, "How far eps may be moved when clustering collapses; 0 = never.", "[0, 1]"
    ),
    "CC.COLLAPSE.SHRINK_P": Key(
        True, "With fewer clusters than a batch holds, train on smaller batches."
    ),
    "CC.COLLAPSE.KEEP_PREVIOUS": Key(True, "If nothing else helps, train on with the last labels."),
    "CC.NEIGHBORS.NAME": Key("exact", "Neighbour search in use.", NEIGHBORS),
    "CC.DISTANCE.NAME": Key("jaccard", "Distance, where the clusterer consumes one.", DISTANCES),
    "CC.CLUSTER.NAME": Key("dbscan", "Clusterer that makes the pseudo-labels.", CLUSTERERS),
    "CC.REFINE.NAMES": Key((), "Refiners of the pseudo-labels, applied in this order.", REFINERS),
    "CC.MEMORY.NAME": Key("cluster", "Memory that the losses contrast with.", MEMORIES),
    "MODEL.LOSSES.NAME": Key(
        ("CrossEntropyLoss",),
        "Losses, each added with its SCALE. Without labels at least one of this plug-in.",
        LOSSES,
    ),
    "CC.TEACHER.ENABLED": Key(
        False, "Keep a mean teacher: the average of the network over its steps."
    ),
    "CC.TEACHER.USE_FOR_LABELS": Key(
        True, "Features for clustering and memory come from the teacher."
    ),
    "CC.TEACHER.EVALUATE": Key(True, "Evaluation measures the teacher, not the network trained."),
    "CC.TEACHER.OWN_VIEW": Key(
        False, "The teacher, or the second network, sees another augmentation."
    ),
    "CC.CAMSTYLE.MODE": Key(
        "off",
        "Show target images as other cameras see them: from FOLDER, or by colour statistics.",
        ("off", "folder", "statistics"),
    ),
    "CC.CAMSTYLE.FOLDER": Key(
        "", "Folder of ready-made camera-style images, <stem>_fake_<c>to<c'>.jpg."
    ),
    "CC.CAMSTYLE.IMAGES_PER_CAMERA": argument_keys(StyleStatistics)[
        "CC.CAMSTYLE.IMAGES_PER_CAMERA"
    ],
    "CC.SOURCES.NAMES": Key(
        (), "Labelled data sets to learn from beside DATASETS.NAMES, the target."
    ),
    "CC.SOURCES.MODE": Key(
        "joint",
        "Sources are in every batch (joint), or come before the target only (pretrain).",
        ("joint", "pretrain"),
    ),
    "CC.SOURCES.PRETRAIN_EPOCHS": Key(0, "First epochs, on the sources' labels alone.", "[0, inf)"),
    "CC.SOURCES.IMS_PER_BATCH": Key(
        64, "Images of each source in a step, beside SOLVER.IMS_PER_BATCH.", "[1, inf)"
    ),
    "CC.SOURCES.NUM_INSTANCE": Key(4, "Images of a source identity in a step.", "[1, inf)"),
    "CC.SOURCES.LOSSES": Key(
        ("CrossEntropyLoss", "TripletLoss"), "Losses of fastreid for source images.", STOCK_LOSSES
    ),
    "CC.SOURCES.IN_MEMORY": Key(
        True, "Source classes are rows of the memory, as in SpCL (mode joint)."
    ),
    "CC.SOURCES.SCALE": Key(1.0, "Factor of all losses of source images.", "[0, inf)"),
    "CC.SOURCES.BN": Key(
        "shared",
        "Batch norm shared by all domains, one for each domain, or one for each with a gate.",
        ("shared", "domain", "rectified"),
    ),
    "CC.SOURCES.GATE_SCALE": Key(
        2.0, "Factor of the rectified gate: 2 starts at identity, 1 is as published.", "(0, inf)"
    ),
    "CC.WARMUP.EPOCHS": Key(
        0, "Epochs of instance discrimination before the first clustering.", "[0, inf)"
    ),
    "CC.WARMUP.VIEWS": Key(4, "Augmented views of an image in a batch, in warm-up.", "[1, inf)"),
    "CC.WARMUP.TEMPERATURE": Key(
        0.1, "Logits of the warm-up are cosines divided by it.", "(0, inf)"
    ),
    "CC.WARMUP.MOMENTUM": Key(0.2, "Weight of the old row of an image in warm-up.", "[0, 1]"),
    "CC.WARMUP.COLOR_ROBUST": Key(
        True, "Warm up with INPUT.COLOR_ROBUST at full (default) strength."
    ),
    "CC.WARMUP.NEGATIVES": Key(
        "same_camera",
        "What an image is contrasted with in warm-up: images of its camera, or all.",
        ("same_camera", "all"),
    ),
    "INPUT.COLOR_ROBUST.ENABLED": Key(
        False, "Colour-robust augmentation of training images, before ToTensor."
    ),
    "MODEL.HEADS.MDIF.SCALE": Key(
        1.0, "MDIFHead: factor of the losses of fused features, beside the host's.", "[0, inf)"
    ),
    "MODEL.HEADS.MDIF.EVALUATE": Key(
        "fused", "MDIFHead: which features evaluation and clustering use.", ("fused", "host")
    ),
    **argument_keys(DomainFusion),
    **argument_keys(MeanTeacher),
    **argument_keys(ColorRobust),
    **argument_keys(SyntheticOptions),
    **argument_keys(FolderOptions),
}
