"""Names that users write in configs and scripts. To remove or rename one, edit this list."""

from __future__ import annotations

import importlib
import inspect

import pytest

from fastreid_cc.config import FIXED_KEYS, REGISTRIES

PARTS = {
    "neighbour search": "cells exact faiss_flat faiss_hnsw faiss_ivf",
    "distance": "ca_jaccard cosine jaccard",
    "clusterer": "components dbscan hdbscan infomap kmeans",
    "refiner": "merge_proposals min_size self_paced single_camera",
    "memory": "camera_proxy cluster hybrid instance",
    "loss": "AMSoftmax AdaSP AverageK BatchHardTriplet CameraProxyContrast ECN"
    " EasyPositive GraphPositives MemoryContrast MultiSimilarity PairwiseCircle PairwiseCosface"
    " SoftContrast SoftTriplet SupCon",
}

KEYS = """
CC.ENABLED CC.SEED CC.REPORT CC.ITERS_PER_EPOCH CC.EVAL_BEFORE CC.SAMPLES_PER_BN CC.AMP_DTYPE
CC.FUSED_OPTIMIZER CC.LABEL_TIMEOUT_MINUTES CC.SAMPLER.CAMERA_AWARE CC.SAMPLER.OUTLIERS_PER_BATCH
CC.EXTRACT.IMS_PER_BATCH CC.EXTRACT.FLIP CC.EXTRACT.BN CC.LABELS.PERIOD CC.LABELS.OUTLIERS
CC.COLLAPSE.EPS_BOUND CC.COLLAPSE.SHRINK_P CC.COLLAPSE.KEEP_PREVIOUS CC.NEIGHBORS.NAME
CC.DISTANCE.NAME CC.CLUSTER.NAME CC.REFINE.NAMES CC.MEMORY.NAME CC.WARMUP.EPOCHS CC.WARMUP.VIEWS
CC.WARMUP.TEMPERATURE CC.WARMUP.MOMENTUM CC.WARMUP.COLOR_ROBUST CC.WARMUP.NEGATIVES
CC.TEACHER.ENABLED CC.TEACHER.MOMENTUM CC.TEACHER.RAMP CC.TEACHER.USE_FOR_LABELS CC.TEACHER.EVALUATE
CC.TEACHER.OWN_VIEW CC.CAMSTYLE.MODE CC.CAMSTYLE.FOLDER CC.CAMSTYLE.IMAGES_PER_CAMERA
"""

MODULES = {
    "fastreid_cc": "__version__",
    "fastreid_cc.registry": "Registry NEIGHBORS DISTANCES CLUSTERERS REFINERS MEMORIES LOSSES",
    "fastreid_cc.structures": "Batch KnnGraph PseudoLabels Search",
    "fastreid_cc.labeling": "PseudoLabeler",
    "fastreid_cc.networks.mean_teacher": "MeanTeacher",
    "fastreid_cc.networks.domain_fusion": "DomainFusion",
    "fastreid_cc.memories.pair": "PairMemory",
    "fastreid_cc.data.camera_style": "StyleFolder StyleStatistics",
    "fastreid_cc.config": "faults validate build_part all_keys",
    "fastreid_cc.labeling.collapse": "CollapsedError CollapsePolicy recover_from_collapse",
    "fastreid_cc.networks.ghost_batch_norm": "split_batch_norm batch_statistics",
    "fastreid_cc.labels.numbering": "build_label_space",
    "fastreid_cc.labeling.rerank": "jaccard_query_gallery",
    "fastreid_cc.labeling.neighbors.base": "NeighborSearch",
    "fastreid_cc.labeling.distances.base": "Distance",
    "fastreid_cc.labeling.clusterers.base": "Clusterer",
    "fastreid_cc.labeling.refiners.base": "Refiner",
    "fastreid_cc.memories.base": "Memory",
    "fastreid_cc.losses.base": "Loss PairwiseLoss",
    "fastreid_cc.data.samplers": "ClusterSampler ViewSampler",
    "fastreid_cc.data.synthetic": "SyntheticOptions build_synthetic",
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


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.family)
def test_parts_have_documented_keyword_arguments_of_plain_types(registry: object) -> None:
    for name in registry.names():  # type: ignore[attr-defined]
        part = registry.get(name)  # type: ignore[attr-defined]
        assert (part.__doc__ or "").strip(), name
        signature = inspect.signature(part.__init__)
        for argument in list(signature.parameters.values())[1:]:
            assert argument.kind is inspect.Parameter.KEYWORD_ONLY, f"{name}.{argument.name}"
            assert type(argument.default) in (bool, int, float, str, tuple), name


def test_listed_config_keys_are_there() -> None:
    assert set(KEYS.split()) <= set(FIXED_KEYS)


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
