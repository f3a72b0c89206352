"""Config keys come from signatures, every YAML of the repository is sound, faults come at once."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastreid_cc.config import (
    FIXED_KEYS,
    REGISTRIES,
    all_keys,
    build_part,
    faults,
    get_key,
    part_keys,
    validate,
)
from fastreid_cc.config.shipped import TESTED, how_tested
from fastreid_cc.limits import fault
from fastreid_cc.memories.base import Memory
from fastreid_cc.registry import CLUSTERERS, LOSSES, MEMORIES, Registry

CONFIGS = Path(__file__).parents[1] / "configs"
YAMLS = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yml"))
RESCUE = ("MODEL.LOSSES.NAME", '("AverageK",)', "MODEL.LOSSES.AverageK.RESCUE", True)
LEAVES = [name for name in YAMLS if not Path(name).name.startswith("Base-")]


#: A share in per cent with one digit, as mAP and Rank-1 are given.
FIGURE = r"\b\d{1,2}\.\d\b"
#: How a header begins that has no figure to give.
NO_FIGURE = ("none;", "no figure", "not this form", "better than CE + triplet")


@pytest.fixture(autouse=True)
def plugin() -> None:
    importlib.import_module("fastreid_cc.plugin")


def load(name: str | None = None, *pairs: object) -> Any:
    """get_cfg() with a YAML of configs/ and KEY VALUE pairs."""
    cfg = importlib.import_module("fastreid.config").get_cfg()
    if name:
        cfg.merge_from_file(str(CONFIGS / name))
    cfg.merge_from_list([str(value) for value in pairs])
    return cfg


def sound(*pairs: object) -> Any:
    return load("quick/usl_tiny.yml", *pairs)


# ---- the YAML files ---------------------------------------------------------------------------


def test_there_are_leaves_for_the_data_sets_of_the_papers() -> None:
    folders = {name.split("/")[0] for name in LEAVES}
    assert {"quick", "Market1501", "MSMT17", "DukeMTMC", "VeRi", "PersonX"} <= folders


@pytest.mark.parametrize("name", LEAVES)
def test_a_yaml_loads_is_valid_and_its_model_builds(name: str) -> None:
    """On the meta device, so that no weight is drawn or read."""
    from fastreid.modeling import build_model

    cfg = load(name, "MODEL.BACKBONE.PRETRAIN", False, "MODEL.DEVICE", "meta")
    if cfg.CC.ENABLED:
        assert faults(cfg) == []
    logging.getLogger("fastreid").setLevel(logging.WARNING)
    with torch.device("meta"):
        model = build_model(cfg)
    assert sum(p.numel() for p in model.parameters()) > 10_000


@pytest.mark.parametrize("name", [name for name in YAMLS if name not in LEAVES])
def test_a_base_is_valid_once_a_data_set_is_named(name: str) -> None:
    cfg = load(name, "DATASETS.NAMES", '("SyntheticReID",)')
    assert not cfg.CC.ENABLED or faults(cfg) == []


@pytest.mark.parametrize("name", YAMLS)
def test_a_yaml_opens_with_a_comment_that_says_what_it_gives(name: str) -> None:
    first = (CONFIGS / name).read_text().splitlines()[0]
    assert first.startswith("# ") and len(first) > 20


@pytest.mark.parametrize(
    "name", [n for n in LEAVES if n.split("/")[0] not in ("quick", "demo", "OwnImages")]
)
def test_a_leaf_of_a_paper_states_the_number_and_ours(name: str) -> None:
    lines = (CONFIGS / name).read_text().splitlines()
    header = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    before, _, ours = header.partition(" Ours: ")
    theirs = re.search(r"\b(?:Paper|Unofficial code|OpenUnReID)[^:]*: (.*)", before)
    assert theirs and (re.search(FIGURE, theirs[1]) or theirs[1].startswith(NO_FIGURE))
    assert ours.startswith("not run yet") or re.match(FIGURE, ours)
    assert len(lines) <= 20


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_says_how_far_it_was_tested(name: str) -> None:
    """And the words above it do not say another thing; of a base nothing is said."""
    state = how_tested(str(CONFIGS / name))
    header = [line for line in (CONFIGS / name).read_text().splitlines() if line.startswith("#")]
    assert (
        state in TESTED and [line for line in header if line.startswith("# tested:")] == header[-1:]
    )
    not_run = "not run yet" in " ".join(line.lstrip("# ") for line in header)
    assert not_run == (state in ("none", "values"))


def test_a_base_and_other_files_say_nothing_of_tests(tmp_path: Path) -> None:
    assert how_tested("Base-USL") == ""
    (tmp_path / "mine.yml").write_text((CONFIGS / "demo/label_free.yml").read_text())
    assert how_tested(str(tmp_path / "mine.yml")) == ""  # it may say anything by now


# ---- keys -------------------------------------------------------------------------------------


def test_every_argument_of_every_part_is_a_key_with_its_default() -> None:
    cfg = load()
    for registry in REGISTRIES:
        assert registry.names()
        for name in registry.names():
            for key, (default, _, _) in part_keys(registry, name).items():
                assert get_key(cfg, key) == default, key
                assert type(default) in (bool, int, float, str, tuple), key


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.family)
def test_the_default_config_builds_every_part(registry: Registry) -> None:
    """Those without arguments, which have no node in the config, too."""
    cfg = load()
    assert all(type(build_part(cfg, registry, n)) is registry.get(n) for n in registry.names())


def test_keys_follow_the_signature() -> None:
    keys = part_keys(CLUSTERERS, "dbscan")
    assert keys["CC.CLUSTER.DBSCAN.EPS"] == (0.6, "Radius of a neighbourhood.", "(0, 1]")
    assert keys["CC.CLUSTER.DBSCAN.MIN_SAMPLES"].default == 4
    assert "MODEL.LOSSES.MemoryContrast.SCALE" in part_keys(LOSSES, "MemoryContrast")
    part = build_part(load(None, "CC.CLUSTER.DBSCAN.EPS", 0.35), CLUSTERERS, "dbscan")
    assert part.eps == 0.35


def test_every_key_has_a_line_of_help() -> None:
    keys = all_keys()
    for name, key in keys.items():
        assert len(key.help.split()) >= 3, f"{name}: {key.help!r}"
        assert key.help[0].upper() == key.help[0] and key.help.endswith("."), f"{name}: {key.help}"
    assert set(FIXED_KEYS) < set(keys)


def test_every_number_has_a_range_and_every_default_lies_in_it() -> None:
    for name, key in all_keys().items():
        if type(key.default) in (int, float):
            assert key.limits is not None, name
        for value in key.default if isinstance(key.default, tuple) else (key.default,):
            if isinstance(key.limits, (str, tuple)):
                assert fault(name, value, key.limits) is None
            elif key.limits is not None:
                assert value in key.range.split(" | "), name


def test_a_config_survives_being_written_and_read(tmp_path: Path) -> None:
    cfg = sound("CC.REFINE.NAMES", '("min_size",)', "CC.CLUSTER.DBSCAN.EPS", 0.45)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = load()
    again.merge_from_file(str(tmp_path / "config.yaml"))
    assert again == cfg


def test_a_misspelt_key_is_refused() -> None:
    with pytest.raises((KeyError, AssertionError), match="Non-existent key.*EPSS"):
        load(None, "CC.CLUSTER.DBSCAN.EPSS", 0.5)


def test_a_value_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ValueError, match="CC.CLUSTER.DBSCAN.MIN_SAMPLES"):
        load(None, "CC.CLUSTER.DBSCAN.MIN_SAMPLES", "many")


@pytest.fixture
def visiting_memory() -> Iterator[str]:
    """A memory from outside, registered after the plug-in; gone after the test."""
    name = "visiting"

    @MEMORIES.register(name)
    class Visiting(Memory):
        """Remembers nothing."""

        limits = {"strength": "(0, inf)"}

        def __init__(self, *, strength: float = 0.25, mode: str = "soft") -> None:
            super().__init__(temperature=1.0, momentum=0.0)
            self.strength, self.mode = strength, mode

    yield name
    del MEMORIES._classes[name]
    del importlib.import_module("fastreid.config.defaults")._C.CC.MEMORY[name.upper()]


def test_a_part_registered_later_gets_its_keys(visiting_memory: str) -> None:
    cfg = sound("CC.MEMORY.NAME", visiting_memory, "CC.MEMORY.VISITING.STRENGTH", 0.5)
    part = build_part(cfg, MEMORIES, visiting_memory)
    assert (part.strength, part.mode) == (0.5, "soft")
    assert faults(cfg) == []
    cfg.merge_from_list(["CC.MEMORY.VISITING.STRENGTH", "-1.0"])
    assert any("CC.MEMORY.VISITING.STRENGTH=-1.0 must be" in fault for fault in faults(cfg))


# ---- validation -------------------------------------------------------------------------------


def test_a_sound_config_has_no_faults() -> None:
    assert faults(sound()) == []
    validate(sound())


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("CC.MEMORY.NAME", "clusters"), ("Did you mean 'cluster'", "hybrid", "instance")),
        (("CC.CLUSTER.NAME", "dbscn"), ("Did you mean 'dbscan'",)),
        (("CC.DISTANCE.NAME", "jacard"), ("Did you mean 'jaccard'",)),
        (("CC.NEIGHBORS.NAME", "exat"), ("Did you mean 'exact'",)),
        (
            ("CC.REFINE.NAMES", '("self_pace",)'),
            ("CC.REFINE.NAMES='self_pace'", "Did you mean 'self_paced'"),
        ),
        (("MODEL.LOSSES.NAME", '("MemoryContrst",)'), ("Did you mean 'MemoryContrast'",)),
        (("MODEL.LOSSES.NAME", '("TripletLoss",)'), ("holds no loss of this plug-in",)),
        (("SOLVER.IMS_PER_BATCH", 30, "CC.WARMUP.EPOCHS", 0), ("IMS_PER_BATCH=30", "INSTANCE=4")),
        (("SOLVER.IMS_PER_BATCH", 4), ("leaves one cluster",)),
        (("CC.SAMPLES_PER_BN", 1), ("CC.SAMPLES_PER_BN=1",)),
        (("CC.LABELS.PERIOD", 0), ("CC.LABELS.PERIOD=0",)),
        (("CC.WARMUP.EPOCHS", 9), ("CC.WARMUP.EPOCHS=9", "SOLVER.MAX_EPOCH=4")),
        (("CC.WARMUP.VIEWS", 5), ("CC.WARMUP.VIEWS=5",)),
        (("CC.ITERS_PER_EPOCH", -1), ("CC.ITERS_PER_EPOCH=-1",)),
        (("SOLVER.WARMUP_ITERS", 1000), ("SOLVER.WARMUP_ITERS=1000",)),
        (("CC.SAMPLER.CAMERA_AWARE", "maybe"), ("CC.SAMPLER.CAMERA_AWARE='maybe'", "auto, on")),
        (
            ("CC.SAMPLER.OUTLIERS_PER_BATCH", 6),
            ("CC.SAMPLER.OUTLIERS_PER_BATCH=6", "= 4", "at most 24"),
        ),
        (("CC.SAMPLER.OUTLIERS_PER_BATCH", 28), ("CC.SAMPLER.OUTLIERS_PER_BATCH=28",)),
        ((*RESCUE,), ("AverageK.RESCUE=True", "OUTLIERS_PER_BATCH=0", "e.g. to 4")),
        (
            (*RESCUE, "CC.SAMPLER.OUTLIERS_PER_BATCH", 4, "CC.MEMORY.NAME", "hybrid"),
            ("nothing to rescue",),
        ),
        (
            (*RESCUE, "CC.SAMPLER.OUTLIERS_PER_BATCH", 4, "CC.LABELS.OUTLIERS", "singleton"),
            ("nothing to rescue", "CC.LABELS.OUTLIERS=singleton"),
        ),
        (
            ("CC.REFINE.NAMES", '("merge_proposals",)', "CC.MEMORY.NAME", "camera_proxy"),
            ("merge_proposals", "CC.MEMORY.NAME=camera_proxy"),
        ),
        (
            (
                "CC.REFINE.NAMES",
                '("merge_proposals",)',
                "MODEL.META_ARCHITECTURE",
                "MutualContrast",
            ),
            ("merge_proposals", "two networks"),
        ),
        (
            (
                "CC.MEMORY.NAME",
                "classifier",
                "MODEL.LOSSES.MemoryContrast.PROBABILITY_FLOOR",
                1e-6,
            ),
            ("PROBABILITY_FLOOR=1e-06", "CC.MEMORY.NAME classifier", "set it 0.0"),
        ),
        (("CC.EXTRACT.BN", "batch"), ("CC.EXTRACT.BN='batch'",)),
        (("CC.WARMUP.NEGATIVES", "none"), ("CC.WARMUP.NEGATIVES='none'",)),
        (("CC.COLLAPSE.EPS_BOUND", 2.0), ("CC.COLLAPSE.EPS_BOUND=2.0",)),
        (("CC.TEACHER.MOMENTUM", 1.5), ("CC.TEACHER.MOMENTUM=1.5",)),
        (("DATASETS.NAMES", "()"), ("DATASETS.NAMES is empty",)),
        (("CC.MEMORY.CLUSTER.MOMENTUM", 1.5), ("CC.MEMORY.CLUSTER.MOMENTUM=1.5",)),
        (("CC.DISTANCE.JACCARD.K1", 0), ("CC.DISTANCE.JACCARD.K1=0",)),
    ],
)
def test_a_fault_names_its_key_and_the_way_out(pairs: tuple[object, ...], words: Any) -> None:
    found = faults(sound(*pairs))
    assert len(found) == 1, found
    assert all(word in found[0] for word in words), found


def test_a_hybrid_memory_that_drops_outliers_leaves_some_to_rescue() -> None:
    pairs = ("CC.MEMORY.NAME", "hybrid", "CC.MEMORY.HYBRID.OUTLIERS", "drop")
    assert faults(sound(*RESCUE, "CC.SAMPLER.OUTLIERS_PER_BATCH", 4, *pairs)) == []


def test_all_faults_come_in_one_error() -> None:
    cfg = sound(
        "SOLVER.IMS_PER_BATCH",
        30,
        "CC.WARMUP.EPOCHS",
        0,
        "CC.MEMORY.NAME",
        "clusters",
        "CC.LABELS.PERIOD",
        0,
        "DATASETS.NAMES",
        "()",
    )
    with pytest.raises(ValueError) as caught:
        validate(cfg)
    assert str(caught.value).startswith("4 faults in the config:")
    assert str(caught.value).count("\n") == 4


def test_a_batch_must_divide_by_the_processes_too() -> None:
    assert faults(sound(), world_size=4) == []
    assert any("x 3 process(es)" in fault for fault in faults(sound(), world_size=3))


TRACKLETS = ("DATASETS.NAMES", "('UnlabeledFolder',)", "CC.FOLDER.TRACKLET", "folder:0")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((*TRACKLETS, "CC.CLUSTER.NAME", "kmeans"), "TRACKLET makes links, which CC.CLUSTER.NAME="),
        ((*TRACKLETS, "CC.CLUSTER.NAME", "infomap"), "Use one of components, dbscan, hdbscan, or"),
        ((*TRACKLETS, "CC.MEMORY.NAME", "instance"), "CC.MEMORY.NAME=instance clusters nothing"),
        (("CC.LINKS.FILE", __file__), "holds no UnlabeledFolder"),
        ((*TRACKLETS, "CC.LINKS.FILE", "no.csv"), "CC.LINKS.FILE='no.csv': no such file"),
        ((*TRACKLETS[:2], "CC.SAMPLER.TRACKLET_AWARE", True), "say what they are in CC.FOLDER"),
    ],
)
def test_links_need_something_that_takes_them(pairs: tuple[object, ...], message: str) -> None:
    assert any(message in found for found in faults(sound(*pairs)))
    off = ("CC.LINKS.TRACKLETS", False, "CC.LINKS.OVERLAP", False, "CC.LINKS.FILE", "")
    off += ("CC.SAMPLER.TRACKLET_AWARE", False)
    assert not any(message in found for found in faults(sound(*pairs, *off)))
