"""Config keys of the training itself: those that are no argument of a registered part."""

from __future__ import annotations

from ..data.augment import ColorRobust
from ..data.camera_style import StyleStatistics
from ..data.cut_out import CutOut
from ..data.generated_views import ViewFolder
from ..data.naming import FolderOptions
from ..data.synthetic import SyntheticOptions
from ..data.triplet_mining import TripletMining
from ..labeling.tracklets import LinkOptions
from ..networks.clip_tower import ClipTower
from ..networks.domain_fusion import DomainFusion
from ..networks.mean_teacher import MeanTeacher
from ..networks.timm_network import TimmNetwork
from ..registry import (
    CLUSTERERS,
    DISTANCES,
    GENERATORS,
    LOSSES,
    MEMORIES,
    NEIGHBORS,
    REFINERS,
)
from .signatures import STOCK_LOSSES, Key, argument_keys

#: Full key -> default, help, limits.
FIXED_KEYS: dict[str, Key] = {
    "CC.ENABLED": Key(False, "Train DATASETS.NAMES without identities. Off: stock fastreid."),
    "CC.SEED": Key(1, "Seed of weights, augmentation, sampling, clustering.", "[0, 4294967295]"),
    "CC.SEED_SUPERVISED": Key(False, "Without CC.ENABLED: seed by CC.SEED, not by the clock."),
    "CC.OVERWRITE": Key(False, "Start anew in an OUTPUT_DIR that holds a run, which is removed."),
    "CC.REPORT": Key(False, "Write OUTPUT_DIR/report.html, with images, when training ends."),
    "CC.ITERS_PER_EPOCH": Key(
        0,
        "Steps per epoch; 0 = images // SOLVER.IMS_PER_BATCH. Papers: 200, 400. Without CC.ENABLED"
        " only with mined triplets or transforms that know the epoch.",
        "[0, inf)",
    ),
    "CC.LOSS_STAGES": Key(
        (),
        "Which of MODEL.LOSSES.NAME work from which epoch on, as ((0, (name, ...)), (10, (name,"
        " ...))); () = all in every epoch. Works with true labels too.",
    ),
    "CC.EVAL_BEFORE": Key(False, "Evaluate before the first epoch too (direct transfer)."),
    "CC.COMPARE_IMAGES": Key(
        2000,
        "Training images, at most, whose features before and after training are compared, without"
        " identities, for a warning where training seems to have harmed; 0 = none.",
        "0 or [2, inf)",
    ),
    "CC.KEEP_START": Key(
        False,
        "Where that comparison says that training harmed, model_final.pth holds the weights of the"
        " start, and model_trained.pth those trained.",
    ),
    "CC.SAMPLES_PER_BN": Key(
        0, "Images of a batch that share a batch-norm statistic; 0 = all.", "0 or [2, inf)"
    ),
    "CC.TRAIN_BN": Key(
        "batch",
        "Batch-norm statistics in training: of a batch; of each camera's images (8 at least;"
        " with CC.EXTRACT.BN camera and TEST.BN camera); frozen, those of the starting weights; or"
        " auto: frozen unless these weights' features follow the camera, else batch.",
        ("batch", "camera", "frozen", "auto"),
    ),
    "CC.AMP_DTYPE": Key(
        "auto",
        "Number format with SOLVER.AMP; auto is float16 on CUDA, bfloat16 on a CPU.",
        ("auto", "bfloat16"),
    ),
    "CC.FUSED_OPTIMIZER": Key(False, "One kernel per optimizer step: a fifth of Adam's time."),
    "CC.FLUSH_DENORMALS": Key(
        True,
        "On a CPU, numbers below 1.2e-38 count as 0: those that weight decay leaves in trained"
        " weights make convolutions up to three times slower.",
    ),
    "CC.KEEP_FREED_MEMORY": Key(
        True,
        "On a CPU, keep memory that is freed for the next step (glibc): without it large maps are"
        " paged in anew at each, up to half of a step's time on a virtual machine.",
    ),
    "CC.LABEL_TIMEOUT_MINUTES": Key(
        720.0, "How long processes wait for the first one to make labels.", "(0, 1e6]"
    ),
    "CC.SAMPLER.CAMERA_AWARE": Key(
        "auto",
        "Draw the images of a cluster from different cameras; auto: if there is more than one.",
        ("auto", "on", "off"),
    ),
    "CC.SAMPLER.OUTLIERS_PER_BATCH": Key(0, "Outliers, for AverageK.RESCUE and MpRL.", "[0, inf)"),
    "CC.SAMPLER.TRACKLET_AWARE": Key(
        False, "Draw the images of a cluster from different tracklets first (CC.FOLDER.TRACKLET)."
    ),
    "CC.EXTRACT.IMS_PER_BATCH": Key(256, "Images per extraction batch of a process.", "[1, inf)"),
    "CC.EXTRACT.FLIP": Key(False, "Average the features of an image and its mirror image."),
    "CC.EXTRACT.BN": Key(
        "running",
        "Batch-norm statistics at extraction: those of training, of one camera at a time, or auto:"
        " these where features by the others follow the camera.",
        ("running", "camera", "auto"),
    ),
    "CC.LABELS.PERIOD": Key(1, "Epochs between two labellings.", "[1, inf)"),
    "CC.LABELS.OUTLIERS": Key(
        "drop", "Leave outliers out, or make each a class of its own.", ("drop", "singleton")
    ),
    "CC.LABELS.SMOOTH_NEIGHBORS": Key(
        0,
        "Cluster means of each image's feature and those of that many nearest images; 0 = off.",
        "[0, inf)",
    ),
    "CC.LABELS.LOG_PLAIN": Key(
        False,
        "Where refined features are clustered and identities known for the log, label the plain"
        " features too, for cc/ari_plain.",
    ),
    "CC.COLLAPSE.EPS_BOUND": Key(
        0.15, "How far eps may be moved when clustering collapses; 0 = never.", "[0, 1]"
    ),
    "CC.COLLAPSE.SHRINK_P": Key(True, "With too few clusters for a batch, use smaller batches."),
    "CC.COLLAPSE.KEEP_PREVIOUS": Key(True, "If nothing else helps, go on with the last labels."),
    "CC.NEIGHBORS.NAME": Key("exact", "Neighbour search in use.", NEIGHBORS),
    "CC.DISTANCE.NAME": Key("jaccard", "Distance, if the clusterer consumes one.", DISTANCES),
    "CC.CLUSTER.NAME": Key("dbscan", "Clusterer that makes the pseudo-labels.", CLUSTERERS),
    "CC.REFINE.NAMES": Key((), "Refiners of the pseudo-labels, applied in this order.", REFINERS),
    "CC.MEMORY.NAME": Key("cluster", "Memory that the losses contrast with.", MEMORIES),
    "CC.GENERATE.NAME": Key(
        "blend", "Generator of images, for the command `generate`.", GENERATORS
    ),
    "CC.GENERATE.PEOPLE": Key(
        "",
        'Who is on an image that a generator starts from: "identities" of the data set; a .csv file'
        " with columns image and cluster (of `clusters` or `label`); or a rule over its path, as"
        ' CC.FOLDER.CAMERA has them (a tracklet\'s number); "" = not known.',
    ),
    "CC.GENERATE.POSES": Key(
        "",
        "Key points of the images for pose_transfer: a file or folder of OpenPose, AlphaPose or"
        ' COCO form, or of Pose-Transfer\'s CSV; "synthetic" = those of SyntheticReID.',
    ),
    "MODEL.LOSSES.NAME": Key(
        ("CrossEntropyLoss",),
        "Losses, each added with its SCALE. Without labels at least one of this plug-in.",
        LOSSES,
    ),
    "CC.TEACHER.ENABLED": Key(False, "Keep a mean teacher: the network's average over its steps."),
    "CC.TEACHER.USE_FOR_LABELS": Key(True, "Cluster, and fill the memory, by its features."),
    "CC.TEACHER.EVALUATE": Key(True, "Evaluation measures the teacher, not the network trained."),
    "CC.TEACHER.OWN_VIEW": Key(False, "It, or the second network, sees another augmentation."),
    "CC.CAMSTYLE.MODE": Key(
        "off",
        "Show target images as other cameras see them: from FOLDER, or by colour statistics.",
        ("off", "folder", "statistics"),
    ),
    "CC.CAMSTYLE.FOLDER": Key("", "Folder of transfers <stem>_fake_<c>to<c'>.jpg, made elsewhere."),
    "CC.SOURCES.NAMES": Key((), "Labelled data sets to learn from beside the target."),
    "CC.SOURCES.FOLDERS": Key(
        {},
        "Labelled folders to learn from too: CC.SOURCES.FOLDERS.<NAME>.ROOT, .IDENTITY and the"
        " other keys of CC.FOLDER; their test images are not trained on.",
    ),
    "CC.SOURCES.MODE": Key(
        "joint",
        "Sources are in every batch (joint), or come before the target only (pretrain).",
        ("joint", "pretrain"),
    ),
    "CC.SOURCES.PRETRAIN_EPOCHS": Key(0, "First epochs, on the sources' labels alone.", "[0, inf)"),
    "CC.SOURCES.STEPS": Key(
        (), "SOLVER.STEPS of the epochs of source labels; () = SOLVER.STEPS too.", "[1, inf)"
    ),
    "CC.SOURCES.IMS_PER_BATCH": Key(
        64, "Images of each source in a step, beside SOLVER.IMS_PER_BATCH.", "[1, inf)"
    ),
    "CC.SOURCES.NUM_INSTANCE": Key(4, "Images of a source identity in a step.", "[1, inf)"),
    "CC.SOURCES.SAMPLER": Key(
        "identity",
        "Source images of a step: NUM_INSTANCE of each identity drawn, or images drawn uniformly.",
        ("identity", "uniform"),
    ),
    "CC.SOURCES.LOSSES": Key(
        ("CrossEntropyLoss", "TripletLoss"), "Losses of fastreid for source images.", STOCK_LOSSES
    ),
    "CC.SOURCES.IN_MEMORY": Key(True, "Mode joint: source classes are rows of the memory (SpCL)."),
    "CC.SOURCES.SCALE": Key(1.0, "Factor of all losses of source images.", "[0, inf)"),
    "CC.SOURCES.BN": Key(
        "shared",
        "Batch norm shared by all domains, one for each domain, or one for each with a gate.",
        ("shared", "domain", "rectified"),
    ),
    "CC.SOURCES.GATE_SCALE": Key(
        2.0, "Factor of the rectified gate: 2 starts at identity, 1 is as published.", "(0, inf)"
    ),
    "CC.SOURCES.VALIDATION": Key(
        0.0,
        "Share of each source's identities not trained on; their mAP, every TEST.EVAL_PERIOD,"
        " chooses best_source/model_best.pth.",
        "[0, 1)",
    ),
    "CC.WARMUP.EPOCHS": Key(
        0, "Epochs before clustering in which every image is a class of its own.", "[0, inf)"
    ),
    "CC.WARMUP.LOSSES": Key(
        ("MemoryContrast",),
        "Losses of the warm-up: instance discrimination, or others of this plug-in, e.g. AMDIM.",
        LOSSES,
    ),
    "CC.WARMUP.VIEWS": Key(4, "Augmented views of an image in a batch, in warm-up.", "[1, inf)"),
    "CC.WARMUP.TEMPERATURE": Key(0.1, "Divides the cosines in warm-up.", "(0, inf)"),
    "CC.WARMUP.MOMENTUM": Key(0.2, "Weight of the old row of an image in warm-up.", "[0, 1]"),
    "CC.WARMUP.COLOR_ROBUST": Key(True, "Warm up with INPUT.COLOR_ROBUST at its default strength."),
    "CC.WARMUP.NEGATIVES": Key(
        "same_camera",
        "What an image is contrasted with in warm-up: images of its camera, or all.",
        ("same_camera", "all"),
    ),
    "INPUT.CUT_OUT.ENABLED": Key(False, "Cover training images by a patch that grows by epoch."),
    "INPUT.KEEP_RATIO": Key(
        False, "Fit images into SIZE_TRAIN and SIZE_TEST and pad, instead of distorting them."
    ),
    "INPUT.COLOR_ROBUST.ENABLED": Key(False, "Augment training images robustly against colour."),
    "MODEL.BACKBONE.FROZEN": Key(
        (), "Parameters of the backbone that never learn: patterns at the beginning of their names."
    ),
    "MODEL.BACKBONE.CHANNELS_LAST": Key(
        False, "Give the backbone its images channels last, the order that convolutions like."
    ),
    "MODEL.BACKBONE.WINOGRAD": Key(
        False,
        "Compute 3x3 convolutions of 64 channels and more by Winograd's minimal filtering: a fifth"
        " to three quarters of their time less on an x86 CPU, no effect elsewhere.",
    ),
    "MODEL.BACKBONE.COMPILE": Key(
        "off",
        "Compile the backbone by torch.compile, with its backend of this name: minutes at the start"
        " for faster steps. It needs a C++ compiler or, on CUDA, Triton.",
        ("off", "inductor", "aot_eager", "eager"),
    ),
    "TEST.AMP": Key(
        False,
        "Extract and test in the number format of CC.AMP_DTYPE, whatever training does; labels move"
        " with the rounding.",
    ),
    "TEST.BN": Key(
        "running",
        "Batch-norm statistics of evaluation: those of training, or of one camera's test images at"
        " a time (tens of each camera are needed). `export` writes those of training.",
        ("running", "camera"),
    ),
    "SOLVER.WARMUP_BY_EPOCH": Key(
        False, "The rate of SOLVER.WARMUP_ITERS rises once an epoch instead of once a step."
    ),
    "MODEL.HEADS.TEST_FEAT": Key(
        "neck",
        "Features that evaluation and export give: the neck's output, or the pooled ones before it."
        " Labels and memories are made of the neck's.",
        ("neck", "pooled"),
    ),
    "MODEL.HEADS.MDIF.SCALE": Key(
        1.0, "Factor of MDIFHead's losses of fused features.", "[0, inf)"
    ),
    "MODEL.HEADS.MDIF.EVALUATE": Key(
        "fused", "Features that MDIFHead evaluates and clusters by.", ("fused", "host")
    ),
    **argument_keys(ClipTower),
    **argument_keys(TimmNetwork),
    **argument_keys(DomainFusion),
    **argument_keys(MeanTeacher),
    **argument_keys(StyleStatistics),
    **argument_keys(ViewFolder),
    **argument_keys(ColorRobust),
    **argument_keys(CutOut),
    **argument_keys(TripletMining),
    **argument_keys(SyntheticOptions),
    **argument_keys(FolderOptions),
    **argument_keys(LinkOptions),
}
