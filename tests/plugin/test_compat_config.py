"""Shims of config files: plain YAML, shipped configs by name, clear messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastreid_cc.config.shipped import PREFIX, config_files, configs_folder
from fastreid_cc.errors import BadConfig

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def without():
    from fastreid_cc.plugin.compat import disabled

    return disabled


def merged(path, **options):
    from fastreid.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(path), **options)
    return cfg


def written(folder: Path, text: str, name: str = "x.yml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_tags_run_no_code_even_when_asked_to(tmp_path, without):
    bad = written(tmp_path, f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{tmp_path}/ran']\n")
    with pytest.raises(BadConfig, match=r"x.yml \(line 1\).*could run code"):
        merged(bad, allow_unsafe=True)
    assert not (tmp_path / "ran").exists()
    with without("read_plain_yaml", "explain_wrong_keys"):
        merged(bad, allow_unsafe=True)
    assert (tmp_path / "ran").exists()  # stock runs it


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: x.yml\n", "leads back to itself"),
        ("_BASE_: [1]\n", "must be the name of a file"),
        ("_BASE_: https://host/a.yml\n", "not loaded from the network"),
        ("_BASE_: gone.yml\n", "gone.yml: No such file"),
        ("_BASE_: fastreid_cc://../setup.py\n", "no such config comes with"),
        ("- 1\n", "holds a list"),
        ("CC: {SEED: [1\n", "is no YAML"),
        ("CC: \x00\n", "is no YAML"),
        ("a: &a [*a]\n", "aliases stand for more than"),
        ("CC: {SEDE: 2}\n", r"x.yml: Non-existent config key: CC.SEDE. Did you mean CC.SEED\?"),
        ("CC: {SEED: one}\n", "x.yml: Type mismatch"),
        ("CC: 3\n", "x.yml: "),
    ],
)
def test_a_mistake_is_one_message_with_the_file(tmp_path, text, message):
    from fastreid_cc.errors import ClearError

    with pytest.raises(ClearError, match=message):
        merged(written(tmp_path, text))


def test_aliases_that_grow_without_bound_end_at_once(tmp_path):
    rows = ["a0: &a0 {x: 1}"]
    rows += [
        f"a{i}: &a{i} {{" + ", ".join(f"k{j}: *a{i - 1}" for j in range(9)) + "}"
        for i in range(1, 12)
    ]
    with pytest.raises(BadConfig, match="aliases stand for more"):
        merged(written(tmp_path, "\n".join(rows)))


def test_an_empty_file_changes_nothing(tmp_path):
    from fastreid.config import get_cfg

    cfg = get_cfg()
    assert merged(written(tmp_path, "")) == cfg
    assert cfg.load_yaml_with_base(str(tmp_path / "x.yml")) == {}  # from an object too


def test_shipped_configs_are_named_from_anywhere(tmp_path, monkeypatch):
    from fastreid.utils.file_io import PathManager

    monkeypatch.chdir(tmp_path)
    name = f"{PREFIX}Market1501/cc_R50.yml"
    assert merged(name) == merged(configs_folder() / "Market1501/cc_R50.yml")
    own = merged(written(tmp_path, f"_BASE_: {name}\nCC: {{SEED: 7}}\n"))
    assert own.CC.SEED == 7 and own.DATASETS.NAMES == ("Market1501",)
    assert "_BASE_" in PathManager.open(name).read()
    with pytest.raises(BadConfig, match="only be read"):
        PathManager.open(name, "w")


def test_every_shipped_config_loads(without):
    assert len(config_files()) > 20
    ours = {name: merged(PREFIX + name) for name in config_files()}
    with without("read_plain_yaml", "explain_wrong_keys"):
        for name, cfg in ours.items():
            assert merged(configs_folder() / name) == cfg, name


def test_wrong_pairs_name_the_nearest_key():
    from fastreid.config import get_cfg

    cfg = get_cfg()
    with pytest.raises(
        BadConfig, match="CC.CLUSTER.DBSCAN.EBS. Did you mean CC.CLUSTER.DBSCAN.EPS"
    ):
        cfg.merge_from_list(["CC.CLUSTER.DBSCAN.EBS", "0.5"])
    with pytest.raises(KeyError, match="come in twos"):
        cfg.merge_from_list(["CC.SEED"])


def test_yaml_switches_are_texts_where_a_key_wants_them_and_booleans_elsewhere(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text(
        "CC: {ENABLED: on, SAMPLER: {CAMERA_AWARE: off}, CAMSTYLE: {MODE: off}, EVAL_BEFORE: no}\n"
    )
    cfg = merged(path).CC
    assert (cfg.SAMPLER.CAMERA_AWARE, cfg.CAMSTYLE.MODE) == ("off", "off")
    assert (cfg.ENABLED, cfg.EVAL_BEFORE) == (True, False)
    path.write_text("CC: {SAMPLER: {CAMERA_AWARE: on}}\n")
    assert merged(path).CC.SAMPLER.CAMERA_AWARE == "on"
    path.write_text("CC: {CAMSTYLE: {MODE: on}}\n")  # no choice of this key
    with pytest.raises(BadConfig, match="CC.CAMSTYLE.MODE"):
        merged(path)
