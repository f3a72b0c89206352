"""Tracklets and answers in a training: they are honoured, logged, and survive a resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_resume import train_until
from tiny_runs import build, config, metrics, same, train

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """24 pictures of 4 people by 2 cameras, 3 frames each; the tracklet is in the name."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for person in range(4):
        colour = generator.integers(0, 256, 3)
        for camera in (1, 2):
            for frame in range(3):
                noise = generator.integers(-90, 91, (32, 16, 3))
                name = f"{camera}/{camera}_t{person}_f{10 * (person // 2) + frame}.png"
                (tmp_path / "crops" / str(camera)).mkdir(parents=True, exist_ok=True)
                picture = np.clip(colour + noise, 0, 255).astype(np.uint8)
                Image.fromarray(picture).save(tmp_path / "crops" / name)
    return tmp_path / "crops"


def folder(crops: Path, *extra: object) -> tuple[object, ...]:
    names = ("DATASETS.NAMES", "('UnlabeledFolder',)", "DATASETS.TESTS", "()")
    rules = ("CC.FOLDER.CAMERA", "folder:0", "CC.FOLDER.TRACKLET", r"_(t\d)_")
    return (*names, "CC.FOLDER.ROOT", crops, *rules, "CC.FOLDER.TIME", r"_f(\d+)", *extra)


def test_links_are_honoured_logged_and_kept_over_a_resume(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = tmp_path / "answers.csv"
    answers.write_text("first,second,same\n1/1_t0_f0.png,2/2_t0_f0.png,yes\nx,y,no\n")
    options = folder(crops, "CC.LINKS.FILE", answers, "CC.LINKS.CUT", 0.0)
    options += ("CC.SAMPLER.TRACKLET_AWARE", True)
    whole = train(config(tmp_path / "whole", *options))
    hook = whole._hooks[0]
    names = [Path(path).stem for path in hook.images.paths]
    links = hook.linker(torch.zeros(24, 2))
    group = links.groups(24)
    assert len(np.unique(group)) == 7  # 8 tracklets, of which an answer joins two
    assert len({group[n] for n, name in enumerate(names) if "_t0_" in name}) == 1
    # By frames, in each camera: tracklets 0 and 1 meet, 2 and 3 meet.
    meet = {tuple(sorted((names[a][:4], names[b][:4]))) for a, b in links.cannot.tolist()}
    assert meet == {("1_t0", "1_t1"), ("1_t0", "2_t1"), ("1_t2", "1_t3"), ("2_t2", "2_t3")}
    labels = hook.labels.labels
    assert (labels >= 0).any()
    assert all(len(set(labels[group == g])) == 1 for g in group)
    assert not any(labels[a] == labels[b] >= 0 for a, b in links.cannot)
    logged = [line for line in metrics(tmp_path / "whole") if "cc/links_must" in line]
    assert [line["cc/links_must"] for line in logged] == [17, 17]
    assert [line["cc/links_cannot"] for line in logged] == [4, 4]
    train_until(config(tmp_path / "parts", *options), 3, monkeypatch)
    build(config(tmp_path / "parts", *options), resume=True).train()
    ends = (torch.load(tmp_path / name / "model_final.pth") for name in ("whole", "parts"))
    assert same(*ends) == ""


def test_cuts_are_kept_over_a_resume(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.labeling import tracklets
    from fastreid_cc.plugin.trainer.checkpoint_state import OtherImages

    left = [1]  # labellings that cut

    def cut_once(features: torch.Tensor, now: tracklets.Tracks, *_: object) -> np.ndarray:
        found = now.tracklets.copy()
        if left and left.pop():
            found[np.flatnonzero(found == 0)[1:]] = 99
        return found

    monkeypatch.setattr(tracklets, "cut", cut_once)
    options = folder(crops)
    whole = train(config(tmp_path / "whole", *options))
    assert whole._hooks[0].linker.parts.max() == 99 and not left
    left.append(1)
    train_until(config(tmp_path / "parts", *options), 3, monkeypatch)
    build(config(tmp_path / "parts", *options), resume=True).train()
    ends = [torch.load(tmp_path / name / "model_final.pth") for name in ("whole", "parts")]
    assert same(*ends) == "" and int(ends[0]["cc"]["parts"].max()) == 99
    other = config(tmp_path / "parts", *options, "CC.FOLDER.TRACKLET", r"_t(\d)_f\d")
    build(other, resume=True)  # other names, the same tracklets
    with pytest.raises(OtherImages, match="CC.FOLDER.TRACKLET"):
        build(config(tmp_path / "parts", *options, "CC.FOLDER.TRACKLET", r"_f(\d)"), resume=True)


def test_with_all_links_off_a_training_has_the_bytes_of_one_without_tracklets(
    crops: Path, tmp_path: Path
) -> None:
    off = ("CC.LINKS.TRACKLETS", False, "CC.LINKS.OVERLAP", False)
    plain = ("CC.FOLDER.TRACKLET", "", "CC.FOLDER.TIME", "")
    ends = []
    for name, extra in {"off": off, "plain": plain}.items():
        trainer = build(config(tmp_path / name, *folder(crops, *extra)))
        assert trainer._hooks[0].linker is None
        trainer.train()
        ends.append(torch.load(tmp_path / name / "model_final.pth"))
    assert same(*ends) == ""
