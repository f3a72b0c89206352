"""The runs that same_bytes.py compares, and the tables of what a later checkout names otherwise."""

from __future__ import annotations

import re

#: Old config key -> new one, for a checkout that does not know the old one.
KEYS: dict[str, str] = {
    "CC.SEED_STOCK": "CC.SEED_SUPERVISED",
    "MODEL.LOSSES.ECNLoss.START_EPOCH": "MODEL.LOSSES.ECN.START_EPOCH",
}
#: Word in an option's value -> (old key that tells whether it is still known, new word).
VALUES: dict[str, tuple[str, str]] = {"AdaSPLoss": ("MODEL.LOSSES.AdaSPLoss.SCALE", "AdaSP")}
#: Name -> modules to look for it in, the newest first; or (module, new name).
WHERE: dict[str, list[str | tuple[str, str]]] = {
    "DISTANCES": ["fastreid_cc.registry"],
    "NEIGHBORS": ["fastreid_cc.registry"],
    "PseudoLabeler": ["fastreid_cc.labeling"],
    "find_neighbors": ["fastreid_cc.labeling.neighbor_lists"],
    "REFINERS": ["fastreid_cc.registry"],
    "main": ["fastreid_cc.__main__"],
    "unit_rows": ["fastreid_cc.labeling.pseudo_labeler", "fastreid_cc.labeling"],
}
#: (regular expression, replacement) of names "case/entry" of the first record.
RENAMED: list[tuple[str, str]] = [
    ("loss_ada_sploss", "loss_adasp"),
    ("loss_ecnloss", "loss_ecn"),
    ("loss_amsoftmax", "loss_am_softmax"),
]
#: Entries that are no result: times, and the number of the format of "cc".
IGNORED = re.compile(r"seconds|(^|[./])(data_)?time$|eta_|\.version$")

#: OSNet x0.25 on 48 images of 32x16, epochs of three steps, a checkpoint after each.
TINY = """
    MODEL.DEVICE cpu  MODEL.BACKBONE.NAME build_osnet_backbone  MODEL.BACKBONE.DEPTH x0_25
    MODEL.BACKBONE.FEAT_DIM 128  MODEL.BACKBONE.PRETRAIN False  MODEL.BACKBONE.WITH_IBN False
    INPUT.SIZE_TRAIN [32,16]  INPUT.SIZE_TEST [32,16]  DATASETS.NAMES ("SyntheticReID",)
    DATASETS.TESTS ("SyntheticReID",)  DATALOADER.NUM_WORKERS 0  DATALOADER.NUM_INSTANCE 4
    SOLVER.IMS_PER_BATCH 8  SOLVER.MAX_EPOCH 3  SOLVER.WARMUP_ITERS 0  SOLVER.CHECKPOINT_PERIOD 1
    TEST.EVAL_PERIOD 100  TEST.IMS_PER_BATCH 32  CC.ITERS_PER_EPOCH 3  CC.SAMPLES_PER_BN 0
    CC.SYNTHETIC.TRAIN_IDS 8  CC.SYNTHETIC.TEST_IDS 4  CC.SYNTHETIC.CAMERAS 2
    CC.SYNTHETIC.IMAGES_PER_CAMERA 3  CC.SYNTHETIC.HEIGHT 32  CC.SYNTHETIC.WIDTH 16
    CC.DISTANCE.JACCARD.K1 8  CC.DISTANCE.JACCARD.K2 2  CC.CLUSTER.DBSCAN.EPS 0.6
    CC.CLUSTER.DBSCAN.MIN_SAMPLES 2  CC.WARMUP.EPOCHS 0  CC.WARMUP.VIEWS 2
    CC.LABELS.PERIOD 2
"""
#: Over TINY: one epoch on source labels, labellings before the second and the fourth.
SOURCE = """
    SOLVER.MAX_EPOCH 4  CC.SOURCES.PRETRAIN_EPOCHS 1  CC.SOURCES.IMS_PER_BATCH 8
    CC.SOURCES.NUM_INSTANCE 2
"""
ECN = SOURCE + "DATALOADER.NUM_INSTANCE 1 MODEL.LOSSES.ECNLoss.START_EPOCH 2"
GPP = SOURCE + (
    "DATALOADER.NUM_INSTANCE 1  MODEL.LOSSES.GraphPositives.FEATURE_SIZE 128  CC.LABELS.PERIOD 1"
    " MODEL.LOSSES.GraphPositives.CANDIDATES 10  MODEL.LOSSES.GraphPositives.START_EPOCH 2"
)
#: Over TINY, for stock training with labels on MGN, whose branches need a ResNet-50.
MGN = """
    MODEL.BACKBONE.NAME build_resnet_backbone  MODEL.BACKBONE.DEPTH 50x
    MODEL.BACKBONE.FEAT_DIM 2048  MODEL.HEADS.EMBEDDING_DIM 16
    INPUT.SIZE_TRAIN [96,32]  INPUT.SIZE_TEST [96,32]
    SOLVER.AMP.ENABLED False  SOLVER.FREEZE_ITERS 0  SOLVER.MAX_EPOCH 1  CC.SEED_STOCK True
"""
WARM = "CC.WARMUP.EPOCHS 1  SOLVER.MAX_EPOCH 4"
METHOD = WARM + (
    "  MODEL.LOSSES.CameraProxyContrast.START_EPOCH 2  MODEL.LOSSES.AverageK.START_EPOCH 2"
)
TEACHER = "CC.TEACHER.ENABLED True  CC.TEACHER.MOMENTUM 0.5"
USL = "quick/usl_tiny.yml"
#: Case -> (config file, options over it). With `flags` of the script as a third part.
CASES: dict[str, tuple[str, ...]] = {
    "usl_tiny": (USL, "MODEL.DEVICE cpu"),
    "joint_spcl": ("demo/uda/joint-spcl.yml", TINY + SOURCE),
    "pretrain_cc": ("demo/uda/pretrain-cc.yml", TINY + SOURCE),
    "rdsbn": ("demo/uda/rdsbn.yml", TINY + SOURCE),
    "rdsbn_mdif": ("demo/uda/rdsbn_mdif.yml", TINY + SOURCE),
    "ecn": ("demo/uda/ecn.yml", TINY + ECN),
    "ecn_gpp": ("demo/uda/ecn_gpp.yml", TINY + GPP),
    "mmt": ("demo/uda/mmt.yml", TINY + SOURCE),
    "mgn_adasp": ("Market1501/adasp-mgn_R50-ibn.yml", TINY + MGN),
    "mgn_ce_adasp": ("Market1501/ce-adasp-mgn_R50-ibn.yml", TINY + MGN),
    "mgn_label_free": (
        "Market1501/adasp-mgn_R50-ibn.yml",
        TINY + MGN + 'CC.ENABLED True  MODEL.LOSSES.NAME ("MemoryContrast","AdaSPLoss")',
    ),
    "adasp_sbs": ("VehicleID/adasp-sbs_R50-ibn.yml", TINY + MGN + "MODEL.HEADS.EMBEDDING_DIM 0"),
    "spcl_self_paced": ("Market1501/spcl_R50.yml", TINY + "SOLVER.MAX_EPOCH 5 CC.LABELS.PERIOD 1"),
    "spcl_mid_period": ("Market1501/spcl_R50.yml", TINY + "SOLVER.MAX_EPOCH 5"),
    "cc_v1_paper": ("Market1501/cc_v1_paper_R50.yml", TINY),
    "infomap": ("Market1501/cc-infomap_R50.yml", TINY + "CC.CLUSTER.INFOMAP.K1 4"),
    "label_free": (
        "demo/label_free.yml",
        "MODEL.DEVICE cpu  SOLVER.MAX_EPOCH 4  SOLVER.IMS_PER_BATCH 32  SOLVER.WARMUP_ITERS 2"
        " SOLVER.CHECKPOINT_PERIOD 1  CC.ITERS_PER_EPOCH 8  CC.WARMUP.EPOCHS 2"
        " CC.SYNTHETIC.TRAIN_IDS 16  CC.SYNTHETIC.TEST_IDS 8  CC.SYNTHETIC.IMAGES_PER_CAMERA 3",
    ),
    **{
        f"method_{name}": (f"demo/methods/{name}.yml", TINY + METHOD)
        for name in ("cap", "cc_adasp", "cc_all", "cc_average_k", "cc_camera_entropy", "cc_hard",
                     "cc_mean", "spcl")
    },
    "method_ce_adasp": ("demo/methods/ce_adasp.yml", TINY),
    "warm_up": (USL, TINY + "CC.WARMUP.EPOCHS 3  CC.WARMUP.NEGATIVES all"),
    "camera_norm": (
        USL,
        TINY + WARM + " CC.EXTRACT.BN camera  CC.EXTRACT.FLIP True  CC.SAMPLES_PER_BN 4"
        " CC.LABELS.OUTLIERS singleton",
    ),
    "refiners": (
        USL,
        TINY + WARM + ' CC.REFINE.NAMES ("merge_proposals","min_size","single_camera")'
        " CC.REFINE.MERGE_PROPOSALS.START_EPOCH 0  CC.REFINE.MERGE_PROPOSALS.SHARE 0.1"
        " CC.REFINE.MIN_SIZE.MIN_SIZE 3  CC.LABELS.PERIOD 1  SOLVER.MAX_EPOCH 5",
    ),
    "ca_jaccard": (
        USL,
        TINY + WARM + " CC.DISTANCE.NAME ca_jaccard  CC.DISTANCE.CA_JACCARD.K1_INTRA 3"
        " CC.DISTANCE.CA_JACCARD.K1_INTER 5  CC.DISTANCE.CA_JACCARD.K1 8"
        " CC.DISTANCE.CA_JACCARD.K2 2",
    ),
    "teacher": (
        USL,
        TINY + WARM + f" {TEACHER}  CC.TEACHER.OWN_VIEW True"
        ' MODEL.LOSSES.NAME ("MemoryContrast","SoftContrast","SoftTriplet")',
    ),
    "two_processes": (USL, TINY + "SOLVER.IMS_PER_BATCH 16", "--num-gpus 2"),
    "two_processes_sources": ("demo/uda/rdsbn_mdif.yml", TINY + SOURCE, "--num-gpus 2"),
    "kill_and_resume": (
        USL,
        TINY + WARM + f" {TEACHER}  SOLVER.MAX_EPOCH 8  CC.ITERS_PER_EPOCH 6"
        ' CC.MEMORY.NAME hybrid  CC.REFINE.NAMES ("self_paced",)',
        "--resume",
    ),
}  # fmt: skip

#: Labellings of every recorded set of features: options of `python -m fastreid_cc label`.
LABELLINGS = {
    **{f"eps{eps}": f"--eps 0.{eps} --k1 {{k1}} --k2 {{k2}}" for eps in (4, 5, 6, 7)},
    "automatic": "--auto-rho 0.01 --k1 {k1} --k2 {k2}",
    "self_paced": "--refine self_paced --k1 {k1} --k2 {k2} --eps 0.5",
    "small_clusters": "--refine min_size --min-size 6 --k1 {k1} --k2 {k2}",
    "cameras": "--distance ca_jaccard --refine single_camera --cams CAMS",
    "infomap": "--cluster infomap",
    "components": "--cluster components --distance cosine --eps 0.3",
    "hdbscan": "--cluster hdbscan",
}
