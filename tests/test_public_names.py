"""Names that users write in configs and scripts. To remove or rename one, edit this list."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from fastreid_cc.config import FIXED_KEYS, REGISTRIES

PARTS = {
    "neighbour search": "cells exact faiss_flat faiss_hnsw faiss_ivf",
    "distance": "ca_jaccard cosine jaccard",
    "clusterer": "components dbscan hdbscan infomap kmeans",
    "refiner": "cross_camera merge_proposals min_size self_paced single_camera",
    "memory": "bidirectional camera_proxy classifier cluster hybrid instance selective",
    "loss": "AMDIM AMSoftmax AdaSP AverageK BatchHardTriplet CameraProxyContrast ECN EasyPositive"
    " GraphCorrelation GraphPositives ImplicitExtension MemoryContrast MinedTriplet MpRL"
    " MultiSimilarity NeighborConsistency OnlineAssociation PairwiseCircle PairwiseCosface"
    " Prototypes SelectiveContrast SoftContrast SoftTriplet SupCon",
    "generator": "blend dcgan pose_transfer",
}

#: Node -> its keys that are no part's arguments.
KEYS = {
    "CC": "ENABLED SEED SEED_SUPERVISED OVERWRITE REPORT ITERS_PER_EPOCH EVAL_BEFORE"
    " COMPARE_IMAGES SAMPLES_PER_BN AMP_DTYPE FUSED_OPTIMIZER LABEL_TIMEOUT_MINUTES"
    " LOSS_STAGES KEEP_START TRAIN_BN KEEP_FREED_MEMORY FLUSH_DENORMALS",
    "CC.MINING": "POOL PERIOD TOP TRIPLETS SKIP",
    "INPUT": "KEEP_RATIO",
    "INPUT.CUT_OUT": "ENABLED PROB AREA LAST_AREA",
    "CC.SAMPLER": "CAMERA_AWARE TRACKLET_AWARE OUTLIERS_PER_BATCH",
    "CC.EXTRACT": "IMS_PER_BATCH FLIP BN",
    "CC.LABELS": "PERIOD OUTLIERS SMOOTH_NEIGHBORS LOG_PLAIN",
    "CC.COLLAPSE": "EPS_BOUND SHRINK_P KEEP_PREVIOUS",
    "CC.NEIGHBORS": "NAME",
    "CC.DISTANCE": "NAME",
    "CC.CLUSTER": "NAME",
    "CC.REFINE": "NAMES",
    "CC.MEMORY": "NAME",
    "CC.GENERATE": "NAME PEOPLE POSES",
    "MODEL.LOSSES": "NAME",
    "CC.TEACHER": "ENABLED USE_FOR_LABELS EVALUATE OWN_VIEW MOMENTUM RAMP",
    "CC.CAMSTYLE": "MODE FOLDER IMAGES_PER_CAMERA",
    "CC.POSES": "FOLDER SHOW FUSE",
    "CC.SOURCES": "NAMES MODE PRETRAIN_EPOCHS STEPS IMS_PER_BATCH NUM_INSTANCE LOSSES IN_MEMORY"
    " SCALE BN GATE_SCALE SAMPLER VALIDATION FOLDERS",
    "CC.WARMUP": "EPOCHS LOSSES VIEWS TEMPERATURE MOMENTUM COLOR_ROBUST NEGATIVES",
    "INPUT.COLOR_ROBUST": "ENABLED PROB GAMMA GAIN BIAS BRIGHTNESS SHADE GRAY_PROB BLUR_PROB"
    " BLUR_RADIUS FLIP_PROB SCALE SHIFT MARGIN_PROB MARGIN ERASE_PROB ERASE_AREA",
    "MODEL.BACKBONE": "FROZEN CHANNELS_LAST WINOGRAD COMPILE",
    "MODEL.BACKBONE.CLIP": "WIDTH DEPTH HEADS EMBED_DIM PATCH STRIDE TOKENS CHECKPOINTING"
    " LAYER_DECAY",
    "MODEL.BACKBONE.TIMM": "NAME FEATURES PIXELS ARGUMENTS STEM LAYER_DECAY CHECKPOINTING",
    "SOLVER": "WARMUP_BY_EPOCH",
    "TEST": "AMP BN",
    "MODEL.HEADS": "TEST_FEAT",
    "MODEL.HEADS.MDIF": "SCALE EVALUATE FUSION MOMENTUM TEMPERATURE",
    "CC.SYNTHETIC": "SEED TRAIN_IDS TEST_IDS CAMERAS IMAGES_PER_CAMERA HEIGHT WIDTH TAIL",
    "CC.FOLDER": "ROOT INCLUDE EXCLUDE CAMERA CAMERA_SECTORS IDENTITY QUERY GALLERY TEST_INCLUDE"
    " QUERY_CAMERAS GALLERY_CAMERAS MAX_BAD_SHARE TRACKLET TIME MEASURE APART",
    "CC.LINKS": "TRACKLETS OVERLAP POOL CUT FILE",
}

MODULES = {
    "fastreid_cc": "__version__",
    "fastreid_cc.registry": "Part Registry NEIGHBORS DISTANCES CLUSTERERS REFINERS MEMORIES LOSSES"
    " GENERATORS",
    "fastreid_cc.structures": "Batch FeatureRefiner Figures KnnGraph PseudoLabels Search",
    "fastreid_cc.labeling": "PseudoLabeler",
    "fastreid_cc.networks.mean_teacher": "MeanTeacher",
    "fastreid_cc.networks.timm_network": "TimmNetwork load_timm",
    "fastreid_cc.networks.domain_fusion": "DomainFusion",
    "fastreid_cc.networks.clip_tower": "ClipTower clip_weights load_clip resize_positions",
    "fastreid_cc.memories.pair": "PairMemory",
    "fastreid_cc.data.camera_style": "StyleFolder StyleStatistics",
    "fastreid_cc.data.generated_views": "ViewFolder",
    "fastreid_cc.config": "faults validate build_part all_keys",
    "fastreid_cc.labeling.collapse": "CollapsedError CollapsePolicy recover_from_collapse",
    "fastreid_cc.networks.ghost_batch_norm": "split_batch_norm batch_statistics",
    "fastreid_cc.labels.numbering": "build_label_space number_by_first_image",
    "fastreid_cc.labeling.rerank": "jaccard_query_gallery",
    "fastreid_cc.labeling.neighbors.base": "NeighborSearch",
    "fastreid_cc.labeling.distances.base": "Distance",
    "fastreid_cc.labeling.clusterers.base": "Clusterer",
    "fastreid_cc.labeling.refiners.base": "Refiner",
    "fastreid_cc.memories.base": "Memory",
    "fastreid_cc.memories.updates": "update_all update_hard update_mean",
    "fastreid_cc.losses.base": "Loss PairwiseLoss mean_over pair_masks unit",
    "fastreid_cc.errors": "BadConfig",
    "fastreid_cc.generators.base": "Drawn Generator Photos",
    "fastreid_cc.data.samplers": "ClusterSampler ViewSampler",
    "fastreid_cc.data.synthetic": "SyntheticOptions build_synthetic synthetic_poses",
    "fastreid_cc.data.poses": "Canonical NAMES Poses canonical_poses draw_skeleton fuse"
    " mean_pose_images normalize pose_map read_poses resize_keypoints to_18 write_coco",
    "fastreid_cc.boot": "run",
    "fastreid_cc.report": "Clustered Run RunFeatures TestSet build_page read_run",
    "fastreid_cc.plugin.compat": "REPAIRS REQUIRED apply_shims close_loader swap_loader",
    "fastreid_cc.plugin.trainer.pseudo_label_hook": "PseudoLabelHook",
}

FASTREID = {
    "fastreid.modeling.heads:REID_HEADS_REGISTRY": "ClusterContrastHead MDIFHead",
    "fastreid.modeling.meta_arch:META_ARCH_REGISTRY": "ClusterContrast ClusterContrastMGN"
    " MutualContrast",
    "fastreid.data.datasets:DATASET_REGISTRY": "SyntheticReID UnlabeledFolder",
}


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.family)
def test_listed_parts_are_registered_and_registered_parts_listed(registry: object) -> None:
    names = registry.names()  # type: ignore[attr-defined]
    assert names == sorted(PARTS[registry.family].split())  # type: ignore[attr-defined]


def test_the_config_keys_are_those_listed() -> None:
    listed = {f"{node}.{leaf}" for node, leaves in KEYS.items() for leaf in leaves.split()}
    assert listed == set(FIXED_KEYS)


@pytest.mark.parametrize("page", ["README.md", "docs/adding-a-part.md"])
def test_what_the_pages_examples_import_is_listed(page: str) -> None:
    text = (Path(__file__).parents[1] / page).read_text("utf-8")
    found = re.findall(r"^from (fastreid_cc[\w.]*) import (.+)$", text, re.MULTILINE)
    assert len(found) >= 3
    for module, names in found:
        assert set(names.split(", ")) <= set(MODULES.get(module, "").split()), module


@pytest.mark.parametrize("module", MODULES)
def test_listed_names_are_there_and_documented(module: str) -> None:
    if "plugin" in module:
        importlib.import_module("fastreid_cc.plugin")
    found = importlib.import_module(module)
    assert (found.__doc__ or "").strip()
    for name in MODULES[module].split():
        value = getattr(found, name)
        assert not callable(value) or (value.__doc__ or "").strip(), name


@pytest.mark.parametrize("where", FASTREID)
def test_fastreids_registries_know_our_names(where: str) -> None:
    importlib.import_module("fastreid_cc.plugin")
    module, registry = where.split(":")
    known = getattr(importlib.import_module(module), registry)
    for name in FASTREID[where].split():
        assert known.get(name).__name__ == name
