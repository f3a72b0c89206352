"""Every command and every piece of Python in README.md and docs/ is run, by page, in clean folders.

What is done with a command is said by the first rule of `RULES` that takes it, and is part of the
test's name; a command that no rule takes fails. The commands of a page run in their order and find
what those before them wrote; what a reader brings along is made by stand_ins.py.

- trained: as typed, cut to two steps of eight small images by `CUT`, with data sets of a few dozen
  generated images in the layout of the public ones, and OSNet x0.25 as network.
- run: as typed.
- checked: a training like one that is trained, or one in several processes or with repairs switched
  off: up to the moment where it would build the network (weights are not asked for).
- enrolled: `fewshot` with episodes of two people, for the stand-ins are few; other files parsed.
- generated: `generate` with few people, images and steps; with key points of one's own, parsed.
- searched: `search` trains for hours; its words are parsed (test_search_command.py runs it).
- cropped: `crops` as typed; drawn clips are short, of a few people.
- adapted: its words are parsed; the commands that it types are run from the same page, itself in
  test_adapt_command.py.
- posed: `poses` as typed, `world` with a few people; `fuse` is parsed (test_poses_command.py).
- archived: OpenAI's archive is a third of a GB; test_convert_command.py converts one of its kind.
- exported: `export` takes ten seconds, test_run_commands.py runs it; here its words are parsed.
- small: a benchmark, as typed but for its size.
- parsed: hours of trainings; the script takes its words, and the files that they name exist.
- elsewhere: another test, or CI, runs it.
- install: what it names exists.
- drawn: `tensorboard` is a server; the scalars that it would draw are read from the folder instead.
- removed: what is deleted was there.
"""

from __future__ import annotations

import fnmatch
import glob
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from documented import PAGES, ROOT, SHELL, Block, Command, blocks, commands, file_of, unmarked
from documented_places import Places, cut, newest

from fastreid_cc.commands import adapt, convert, export, fewshot, gallery, generate, poses, search
from fastreid_cc.requirements import EXTRAS, FASTREID_COMMAND, NEEDED

COMMANDS = [command for page in PAGES for command in commands(page)]
PYTHON = [b for page in PAGES for b in blocks(page) if b.language in ("python", "py")]
REPAIRS = "".join(p.read_text() for p in ROOT.glob("fastreid_cc/plugin/compat/repairs/*.py"))


def replaced(places: Places, command: Command, words: tuple[str, ...]) -> list[str]:
    """The words, with things of the docs in their places; what an option writes is not made."""
    writes = {"OUTPUT_DIR", "--out", "--csv", "--report", "--json"}
    before = ("", *words)
    return [
        places.put(word, command.page, wanted=before[at] not in writes)
        for at, word in enumerate(words)
    ]


# ---- what is done with a command --------------------------------------------------------------


def trained(places: Places, command: Command) -> None:
    is_script = not command.after
    words = replaced(places, command, command.words[1:] if is_script else command.after)
    if is_script:
        words = [str(ROOT / word) if (ROOT / word).is_file() else word for word in words]
    started = time.time()
    printed = places.call(
        "script" if is_script else "cli", words + cut(words), command.page, command.env
    )
    if "--eval-only" in words:
        assert "mAP" in printed
        return
    final = newest(places.of(command.page))
    assert final is not None
    if "--resume" not in words:
        assert final.stat().st_mtime >= started - 1 and '"iteration": 1' in (
            final.with_name("metrics.json").read_text()
        )


def run(places: Places, command: Command) -> None:
    words = replaced(places, command, command.after)
    assert places.call("cli", words, command.page, command.env).strip()


def exported(places: Places, command: Command) -> None:
    words = replaced(places, command, command.after)[1:]
    assert export.parser().parse_args(words).source == words[0] and places.of(command.page)


def enrolled(places: Places, command: Command) -> None:
    words = replaced(places, command, command.after)
    if not words[1].startswith("logs/"):
        assert fewshot.parser().parse_args(words[1:]).run == words[1]
        return
    few = ["--ways", "2", "--shots", "1", "--queries", "1", "--episodes", "20", "--any-camera"]
    assert "accuracy" in places.call("cli", words + few, command.page, command.env)


def generated(places: Places, command: Command) -> None:
    words = replaced(places, command, command.after)
    args = generate.parser().parse_intermixed_args(words[words.index("generate") + 1 :])
    if not args.config.startswith("demo/"):
        return
    few = ["--count", "2", "CC.SYNTHETIC.TRAIN_IDS", "4", "CC.SYNTHETIC.TEST_IDS", "2"]
    few += ["CC.SYNTHETIC.HEIGHT", "32", "CC.SYNTHETIC.WIDTH", "16", "MODEL.DEVICE", "cpu"]
    few += ["CC.SYNTHETIC.CAMERAS", "2", "CC.GENERATE.DCGAN.CHANNELS", "2"]
    few += ["CC.GENERATE.DCGAN.BATCH", "4", "CC.GENERATE.DCGAN.STEPS", "1"]
    few += ["CC.GENERATE.POSE_TRANSFER.STEPS", "1"]
    assert "2 images by" in places.call("cli", words + few, command.page, command.env)


def searched(places: Places, command: Command) -> None:
    args = search.parser().parse_args(command.after[1:])
    assert (ROOT / "configs" / f"{args.config}.yml").exists() and args.gene


def cropped(places: Places, command: Command) -> None:
    (places.root / "data").mkdir(exist_ok=True)
    words = replaced(places, command, command.after)
    few = ["--people", "3", "--frames", "50"] if "--world" in words else []
    assert places.call("cli", words + few, command.page, command.env).strip()


def adapted(places: Places, command: Command) -> None:
    words = replaced(places, command, command.after)
    todo = adapt.steps(adapt.parser().parse_args(words[1:]))
    assert [step[0] for step in todo] == ["crops", "train", "export"]


def kept(places: Places, command: Command) -> None:
    args = gallery.parser().parse_args(command.after[1:])
    assert args.action in gallery.ACTIONS  # tests/test_gallery.py goes the same way


def posed(places: Places, command: Command) -> None:
    verb = command.after[1]
    if verb == "fuse":
        assert poses.parser().parse_args(command.after[1:]).views
        return
    words = replaced(places, command, command.after)
    few = {"TRAIN_IDS": 6, "TEST_IDS": 2, "IMAGES_PER_CAMERA": 2, "HEIGHT": 32, "WIDTH": 16}
    for key, value in few.items() if verb == "world" else ():
        words += ["--set", f"CC.SYNTHETIC.{key}", str(value)]
    assert "poses" in places.call("cli", words, command.page, command.env)


def archived(places: Places, command: Command) -> None:
    assert convert.parser().parse_args(command.after[1:]).config_file
    test = (ROOT / "tests/plugin/test_convert_command.py").read_text()
    assert "def test_of_torchscript_archives" in test


def checked(places: Places, command: Command) -> None:
    for name in command.env.get("FASTREID_CC_WITHOUT_REPAIRS", "all").split(","):
        assert name == "all" or f"\ndef {name}(" in REPAIRS, f"{command}: no repair {name}"
    words = replaced(places, command, command.after)[1:]
    if command.words[0] == "torchrun":
        words += ["--num-gpus", command.value("--nproc_per_node")]
    data = ["MODEL.BACKBONE.PRETRAIN", "False"]
    places.call("preflight", [*words, *data], command.page, command.env)


def small(places: Places, command: Command) -> None:
    words = [str(ROOT / command.words[1]), *command.words[2:]]
    sizes = ["--images", "300", "--identities", "20", "--size", "16", "--repeat", "1"]
    assert "ARI" in places.call("script", words + sizes, command.page, command.env)


def parsed(places: Places, command: Command) -> None:
    words = []
    for before, word in zip(command.words, command.words[1:], strict=False):
        is_made = before == "--output" or word.startswith("outputs/")
        is_read = "/" in word and not is_made
        found = sorted(glob.glob(str(ROOT / word))) if is_read else [word]
        assert found, f"{command}: there is no {word}"
        words += found
    assert "understood:" in places.call("parse", words, command.page, command.env)


def elsewhere(places: Places, command: Command) -> None:
    if command.words[:3] == ("python", "-m", "pytest"):
        assert (ROOT / command.words[3]).exists()
        # tests/contracts/test_examples.py: the parts of a page, all at once
        source = "".join(path.read_text() for path in places.of(command.page).glob("*.py"))
        assert command.value("-k") in source and command.value("--parts") == "my_parts"
    else:
        makefile = (ROOT / "Makefile").read_text().replace("$(READY)", ".venv/.ready")
        assert f"\n{command.words[1]}:" in makefile, f"{command}: no such target"


def install(places: Places, command: Command) -> None:
    words = command.words
    if words[0] == "pip":
        known = {"torch", "torchvision", *NEEDED.values()}
        known |= {name for packages in EXTRAS.values() for name in packages.values()} | {"."}
        named = {word for word in words[2:] if not word.startswith("-")}
        for word in [word for word in named if word.startswith(".[")]:
            named.remove(word)
            assert set(word[2:-1].split(",")) <= {*EXTRAS, "test"}, f"{command}: no such extra"
        assert " ".join(words) == FASTREID_COMMAND or named <= known, named - known
    elif words[0] == "source":
        assert (
            words[1] == ".venv/bin/activate" and "VENV ?= .venv" in (ROOT / "Makefile").read_text()
        )


def drawn(places: Places, command: Command) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    name = places.put(command.value("--logdir"), command.page, wanted=True)
    folder = places.of(command.page) / name
    events = EventAccumulator(str(folder)).Reload().Tags()["scalars"]
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / command.page).read_text(), re.M)
    told = [pattern for row in rows for pattern in re.findall("`(.+?)`", row)]
    assert {"total_loss", "cc/num_clusters", "mAP"} <= set(events)
    assert [n for n in events if not any(fnmatch.fnmatch(n, one) for one in told)] == []


def removed(places: Places, command: Command) -> None:
    for word in command.words[1:]:
        if not word.startswith("-"):
            path = places.of(command.page) / word
            if not path.exists() and path.suffix not in (".csv", ".npz"):
                places.put(word, command.page, wanted=True)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def is_training(command: Command) -> bool:
    script = command.words[1:2] == ("projects/USL/train_net.py",)
    return command.name == "train" or script


def only_checked(command: Command) -> bool:
    several = "--num-gpus" in command.words or command.words[0] == "torchrun"
    return (
        several
        or bool(command.env)
        or any("done-right" in word or "pn-gan" in word for word in command.words)
        or command.page in ("methods.md", "networks.md")
        and "CC.SEED" not in command.words
    )


def is_python(command: Command, *folders: str) -> bool:
    return command.words[0] == "python" and command.words[1].startswith(folders)


Rule = tuple[Callable[[Command], bool], Callable[[Places, Command], None]]
RULES: list[Rule] = [
    (lambda c: is_training(c) and only_checked(c), checked),
    (is_training, trained),
    (lambda c: c.name == "export", exported),
    (lambda c: c.name == "fewshot", enrolled),
    (lambda c: c.name == "generate", generated),
    (lambda c: c.name == "search", searched),
    (lambda c: c.name == "crops", cropped),
    (lambda c: c.name == "adapt", adapted),
    (lambda c: c.name == "gallery", kept),
    (lambda c: c.name == "poses", posed),
    (lambda c: c.name == "convert" and "ViT-B-16.pt" in c.words, archived),
    (lambda c: bool(c.after), run),
    (lambda c: is_python(c, "benchmarks/labels.py"), small),
    (lambda c: is_python(c, "projects/", "benchmarks/"), parsed),
    (lambda c: c.words[0] == "make" or c.words[:3] == ("python", "-m", "pytest"), elsewhere),
    (lambda c: c.words[0] in ("pip", "source"), install),
    (lambda c: c.words[0] == "tensorboard", drawn),
    (lambda c: c.words[0] == "rm", removed),
]


def rule_of(command: Command) -> Callable[[Places, Command], None] | None:
    return next((do for takes, do in RULES if takes(command)), None)


def kind_of(command: Command) -> str:
    rule = rule_of(command)
    return rule.__name__ if rule else "no rule"


# ---- the tests --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    made = Places(tmp_path_factory.mktemp("docs"))
    yield made
    made.runner.communicate()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{kind_of(c)}:{c}")
def test_a_documented_command_works(places: Places, command: Command) -> None:
    rule = rule_of(command)
    assert rule is not None, f"no rule of RULES runs {command}: add one"
    rule(places, command)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_documented_python_runs(places: Places, block: Block) -> None:
    if file_of(block):
        return (
            compile((places.of(block.page) / file_of(block)).read_text(), str(block), "exec")
            and None
        )
    if "DefaultTrainer(cfg)" in block.text or "(features)" in block.text:
        assert (
            "test_the_readmes_python_runs"
            in (ROOT / "tests/contracts/test_examples.py").read_text()
        )
        return None
    for name in ("features.npy", "model.onnx"):
        if name in block.text:
            places.put(name, block.page, wanted=True)
    places.call("python", [block.text], block.page, {})
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_commands_are_marked_as_such(page: Path) -> None:
    assert unmarked(page) == [], f"mark them as ```{SHELL[0]}"


def test_the_collector_finds_what_is_there() -> None:
    kinds = {kind_of(command) for command in COMMANDS}
    assert kinds == {do.__name__ for _takes, do in RULES}, "a rule that takes nothing can go"
    assert len(COMMANDS) >= 70 and len(PYTHON) >= 10
    assert rule_of(Command("new.md", 1, ("docker", "run", "it"))) is None  # fails until it has one
