"""projects/demo: trainings side by side, a shared warm-up, and the tables."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from source_runs import PRETRAIN
from tiny_runs import PAIRS, plugin_at

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "configs/quick/usl_tiny.yml"
UDA = ROOT / "configs/demo/uda"
MODULES = ("trainings", "compare", "adaptation", "fewshot", "search_criteria", "view_quality")
SHORT = ("CC.ITERS_PER_EPOCH", "3", "SOLVER.WARMUP_ITERS", "2")


@pytest.fixture
def demo(data_root, monkeypatch):
    """The demo's modules, with data sets in the tests' folder."""
    monkeypatch.syspath_prepend(str(ROOT / "projects/demo"))
    monkeypatch.setenv("FASTREID_DATASETS", str(data_root))
    with plugin_at(data_root):
        import compare
        import trainings

        yield trainings, compare
    for name in MODULES:
        sys.modules.pop(name, None)


def same_weights(one: Path, other: Path) -> bool:
    found = [torch.load(folder / "model_final.pth")["model"] for folder in (one, other)]
    return all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("beginning", ["warm-up", "source labels"])
def test_a_shared_beginning_gives_the_bytes_of_the_whole_run(demo, tmp_path, beginning):
    trainings, compare = demo
    first_config, scalar, more = QUICK, "mAP", ("CC.WARMUP.EPOCHS", 2, "SOLVER.MAX_EPOCH", 4)
    if beginning == "source labels":
        first_config, scalar, more = UDA / "pretrain-cc.yml", "SyntheticReID/mAP", PRETRAIN
    options = (*map(str, (*PAIRS, *more)), *SHORT)
    other = tmp_path / "other.yml"
    parts = "{MEMORY: {NAME: hybrid}, REFINE: {NAMES: [self_paced]}}"
    other.write_text(f"_BASE_: {first_config}\nCC: {parts}\n")
    first, second = compare.plan([first_config, other], range(1, 2), tmp_path)
    assert [t.name for t in first] == [f"{first_config.stem} seed 1"]
    assert [t.name for t in second] == ["other seed 1"]
    epochs = "1" if beginning == "source labels" else "2"
    period = ("SOLVER.CHECKPOINT_PERIOD", epochs)
    first = [replace(t, options=(*t.options, *options, *period)) for t in first]
    start = first[0].output / f"model_{int(epochs) - 1:04d}.pth"
    second = [replace(t, options=(*t.options, *options), start=start) for t in second]
    jobs = trainings.cores()  # one thread each: more wait for each other where tests share them
    trainings.run_all(first, jobs)
    alone = trainings.Training("alone", other, tmp_path / "alone", ("CC.SEED", "1", *options))
    found = trainings.run_all([*second, alone], jobs)
    assert found["alone"][scalar] == found["other seed 1"][scalar]
    assert same_weights(tmp_path / "other/seed1", tmp_path / "alone")
    assert not same_weights(first[0].output, tmp_path / "alone")
    assert "±" not in compare.table(compare.summarise([other], range(1, 2), tmp_path))
    if beginning == "warm-up":
        return
    # stopped after the beginning, a training goes on from there
    (alone.output / "model_final.pth").unlink()
    (alone.output / "last_checkpoint").write_text(start.name)
    (alone.output / start.name).write_bytes(start.read_bytes())
    assert "--resume" in alone.command
    trainings.run_all([alone], jobs)
    assert same_weights(tmp_path / "other/seed1", tmp_path / "alone")


def test_the_table_of_adaptation_holds_every_row_beside_its_control(demo):
    import adaptation

    stems = {row.config for row in adaptation.ROWS}
    assert {row.control for row in adaptation.ROWS} <= stems | {"", "transfer"}
    assert all((adaptation.CONFIGS / f"{stem}.yml").exists() for stem in stems)
    results = {row.text: {"mAP": []} for row in adaptation.ROWS}
    results[adaptation.ROWS[0].text] = {"mAP": [40.0, 41.0, 42.0], "source after": [80.0]}
    by_config = {row.config: row.text for row in adaptation.ROWS if not row.stage}
    results[by_config["pretrain-cc"]] |= {"mAP": [50.0, 52.0, 54.0], "source before": [80.0]}
    results[by_config["strong-baseline"]] |= {"mAP": [49.0, 53.0, 54.5]}
    lines = adaptation.table(results).splitlines()
    own = next(line for line in lines if by_config["pretrain-cc"] in line)
    assert "+10.0 +11.0 +12.0" in own and "+11.0 ± 1.0, real" in own
    strong = next(line for line in lines if by_config["strong-baseline"] in line.split("|")[1])
    assert "-1.0 +1.0 +0.5" in strong and "within the spread" in strong


def test_the_table_of_few_shots_holds_every_row_beside_its_control(demo, tmp_path, monkeypatch):
    import fewshot

    stems = {row.config for row in fewshot.ROWS}
    assert {path.stem for path in fewshot.CONFIGS.glob("*.yml")} == stems
    assert {row.control for row in fewshot.ROWS} <= stems | {""}
    tiny = tmp_path / "untrained.yml"
    lines = "CC: {SYNTHETIC: {TRAIN_IDS: 1, TEST_IDS: 5, IMAGES_PER_CAMERA: 8}}"
    tiny.write_text(f"_BASE_: {QUICK}\n{lines}\n")
    monkeypatch.setattr(fewshot, "CONFIGS", tmp_path)
    draw_data(tiny)
    row = fewshot.ROWS[0]
    found = [
        fewshot.measure(row, seed, tmp_path / str(seed), ways=(2, 4), shots=(1, 5))
        for seed in (1, 2)
    ]
    assert found[0] != found[1]  # another seed, other weights
    monkeypatch.setattr(fewshot.fewshot, "main", None)  # the second call reads what the first wrote
    assert fewshot.measure(row, 1, tmp_path / "1") == found[0]
    monkeypatch.setattr(fewshot, "COMPARED", "4 ways, 1 shot")
    better = [json.loads(json.dumps(run)) for run in found]
    for run in better:
        run["episodes"][1]["accuracy"] += 10
    results = {stem: better if stem == "instance" else found for stem in stems}
    table = fewshot.table(results)
    assert "+10.0 +10.0" in table and "-10.0 -10.0" in table  # instance; what is compared with it
    assert all(row.text in table for row in fewshot.ROWS) and "at most ±" in table


MEASURED = {
    **{"mAP": 50.0, "ARI": 0.5, "silhouette": 0.1, "stability": 0.5, "rank": 9.0, "outliers": 0.1},
    **{"KL, counts, s 0": 0.2, "KL, counts, s 1": 0.5, "KL as published, s 1": 0.6},
}


def test_the_search_of_weights_trains_what_a_genome_says_and_measures_it_once(demo, tmp_path):
    import search_criteria

    from fastreid_cc.plugin.offline.run_folder import read_config

    config = tmp_path / "tiny.yml"
    names = ", ".join(search_criteria.LOSSES)
    config.write_text(f"_BASE_: {QUICK}\nMODEL: {{LOSSES: {{NAME: [{names}]}}}}\n")
    search_criteria.CONFIG, search_criteria.PEOPLE = config, 4
    every = search_criteria.genomes(2)
    assert every["ones"] == (1.0,) * 5 and len(set(every["genome01"])) == 5
    more = (*map(str, PAIRS), *SHORT)
    ones, other = (
        search_criteria.training("equal", name, every[name], 1, tmp_path, more)
        for name in ("ones", "genome01")
    )
    assert other.start == ones.output / "model_0004.pth" and ones.start is None
    assert ones.options[-2:] == ("SOLVER.CHECKPOINT_PERIOD", "5")
    jobs = demo[0].cores()
    search_criteria.run([replace(other, start=None)], jobs)
    cfg = read_config(other.output)
    used = [cfg.MODEL.LOSSES[name].SCALE for name in search_criteria.LOSSES]
    assert tuple(used) == every["genome01"] and cfg.CC.SYNTHETIC.TAIL == 0
    found = json.loads((other.output / "measured.json").read_text())
    assert found.keys() == MEASURED.keys() and not list(other.output.glob("*.pth"))
    search_criteria.run([other], jobs)  # trains nothing: there is no warm-up to start from


def test_the_table_of_criteria_tells_which_follow_the_hidden_map(
    demo, tmp_path, monkeypatch, capsys
):
    import search_criteria as script

    every = script.genomes(6)
    for world in script.WORLDS:
        for i, name in enumerate(every):
            for seed in (
                script.SEEDS
            ):  # the more mAP the more silhouette; the less outliers, and the less fitness
                row = {"mAP": 50.0 + i, "ARI": 0.1 * i, "silhouette": 0.01 * i, "outliers": -i}
                row |= {script.CHOOSES[world]: -0.1 * i, "rank": -float(i)}
                write(tmp_path / world / name / f"seed{seed}", MEASURED | row)
        for name, value in ((script.ONES, 50.0), ("best", 53.0)):
            for seed in script.FRESH_SEEDS:
                row = MEASURED | {"mAP": value + seed / 10}
                write(tmp_path / "full" / world / name / f"seed{seed}", row)
    words = ["search_criteria.py", "--genomes", "6", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    script.main()
    lines = capsys.readouterr().out.splitlines()
    good = next(line for line in lines if "silhouette" in line)
    assert good.count("+1.00 (") == 4 and "decorative" not in good
    assert next(line for line in lines if "| rank" in line).count("-1.00") >= 4
    assert "decorative" in next(line for line in lines if "stability" in line)  # all are equal
    assert sum("+3.0 +3.0 +3.0" in line for line in lines) == 2
    assert sum("51.0 to 56.0; of one seed with the other +1.00" in line for line in lines) == 2
    chosen = json.loads((tmp_path / "results.json").read_text())["winners"]
    assert chosen == dict.fromkeys(script.WORLDS, "genome06")


def write(folder, row):
    folder.mkdir(parents=True)
    (folder / "measured.json").write_text(json.dumps(row))


def test_learnt_views_stand_beside_copying_and_the_mean(demo, tmp_path, monkeypatch, data_root):
    import view_quality

    from fastreid_cc import __main__ as cli

    config = tmp_path / "tiny.yml"
    node = "{HEIGHT: 32, WIDTH: 24, CHANNELS: 2, BLOCKS: 0, VIEWS: 2, STEPS: 2, BATCH: 2}"
    config.write_text(
        f"_BASE_: {ROOT}/configs/demo/pn-gan/generate.yml\nCC: {{SYNTHETIC: {{TRAIN_IDS: 3,"
        f" TEST_IDS: 2, CAMERAS: 2}}, GENERATE: {{POSE_TRANSFER: {node}}}}}\n"
    )
    words = ["generate", str(config), "MODEL.DEVICE", "cpu", "--out", str(tmp_path / "made")]
    assert cli.main([*words, "--count", "2"]) == 0
    monkeypatch.setattr(view_quality, "CONFIG", config)
    found = view_quality.measure(tmp_path / "made", data_root)
    # 2 people, 2 cameras, 4 pictures of each: 48 ordered pairs, less those whose target is hidden
    assert 0 < found["pairs"] <= 48 and found["pairs"] % 3 == 0
    assert 0 < found["copy"] < found["view"]  # two steps teach nothing
    assert 0 < found["mean of the pose"] and found["view below copy"] < 0.5


def draw_data(path):
    from fastreid.config import get_cfg

    from fastreid_cc.plugin.loading.datasets import configure_from
    from fastreid_cc.plugin.loading.target_images import collect_images

    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    configure_from(cfg)
    collect_images(cfg)


def test_a_warm_up_by_another_loss_is_shared_by_its_keys(demo, tmp_path):
    _, compare = demo
    few = ROOT / "configs/demo/fewshot"
    rest = "MODEL: {LOSSES: {NAME: [MemoryContrast]}}"
    other, softer = tmp_path / "other.yml", tmp_path / "softer.yml"
    other.write_text(f"_BASE_: {few}/amdim_episodes.yml\n{rest}\n")
    softer.write_text(f"_BASE_: {other}\nMODEL: {{LOSSES: {{AMDIM: {{CLIP: 5.0}}}}}}\n")
    configs = [few / "amdim_episodes.yml", other, softer, few / "instance_episodes.yml"]
    first, second = compare.plan(configs, range(1, 2), tmp_path)
    assert [t.config.stem for t in second] == ["other"] and len(first) == 3


def test_a_training_that_fails_says_why_and_the_others_go_on(demo, tmp_path):
    trainings, _ = demo
    broken = trainings.Training("broken", QUICK, tmp_path / "b", ("CC.LABELS.PERIOD", "0"))
    once = ("CC.WARMUP.EPOCHS", "0", "SOLVER.MAX_EPOCH", "1", *SHORT)
    other = trainings.Training("other", QUICK, tmp_path / "o", once)
    with pytest.raises(RuntimeError, match=r"broken failed[\s\S]*CC.LABELS.PERIOD=0"):
        trainings.run_all([broken, other], max(2, trainings.cores()))
    assert (tmp_path / "o" / "model_final.pth").exists()


def test_another_beginning_is_not_shared(demo, tmp_path):
    _, compare = demo
    longer = tmp_path / "longer.yml"
    longer.write_text(f"_BASE_: {QUICK}\nCC: {{WARMUP: {{EPOCHS: 1}}}}\n")
    graphs = [UDA / f"{stem}.yml" for stem in ("ecn", "ecn_gpp", "pretrain-cc", "joint-spcl")]
    first, second = compare.plan([QUICK, longer, *graphs], range(1, 2), tmp_path)
    assert len(first) == 6
    assert not second


def test_the_table_of_one_practice_off_holds_the_papers_difference_beside_ours(demo):
    _, compare = demo
    folder = ROOT / "configs/demo/done-right"
    configs = [folder / "full.yml", *sorted(folder.glob("without-*.yml"))]
    papers = {config.stem: compare.paper_difference(config) for config in configs}
    assert len(papers) == 7 and papers["full"] == "" and all(list(papers.values())[1:])
    values = {name: [50.0, 52.0, 54.0] for name in papers}
    values |= {"without-mining": [49.0, 53.0, 54.5], "without-depth": [40.0, 41.0, 44.5]}
    results = {
        name: dict.fromkeys(compare.COLUMNS, []) | {"mAP": found} for name, found in values.items()
    }
    lines = compare.table(results, papers).splitlines()
    assert lines[0].rstrip(" |").endswith("paper's difference")
    rows = {line.split("|")[1].strip(): line for line in lines[2:]}
    assert "-10.0 -11.0 -9.5" in rows["without-depth"]
    assert "-10.2 ± 0.8, real" in rows["without-depth"] and "-4.9" in rows["without-depth"]
    assert "within the spread" in rows["without-mining"] and "none" in rows["without-mining"]
    assert "paper" not in compare.table({"full": results["full"]})
