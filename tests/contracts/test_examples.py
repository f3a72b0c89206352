"""The parts in README.md and docs/adding-a-part.md keep the contracts; the README's Python runs.

tests/plugin/test_documented_commands.py trains with these parts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import bring

ROOT = Path(__file__).resolve().parents[2]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "adding-a-part.md"
#: Over usl_tiny.yml: two labelled epochs of two small batches.
SHORT = (
    "SOLVER.MAX_EPOCH 2 SOLVER.IMS_PER_BATCH 8 SOLVER.WARMUP_ITERS 0 CC.WARMUP.EPOCHS 0"
    " CC.ITERS_PER_EPOCH 2 CC.SYNTHETIC.TRAIN_IDS 8 CC.SYNTHETIC.TEST_IDS 4"
    " CC.SYNTHETIC.IMAGES_PER_CAMERA 3 CC.SYNTHETIC.HEIGHT 32 CC.SYNTHETIC.WIDTH 16"
    " INPUT.SIZE_TRAIN [32,16] INPUT.SIZE_TEST [32,16] CC.SEED 3"
).split()
#: Parts of bad_parts.py -> tests, without "test_", that must fail for them.
BROKEN = {
    "without_sources": (
        "targets_lie_in_the_label_space_and_columns_in_the_logits",
        "odd_labellings_are_legal",
    ),
    "forgetful": (
        "restored_from_its_state_it_goes_on_with_the_same_bytes",
        "two_runs_give_the_same_bytes_and_leave_no_trace",
        "rows_have_unit_length_and_live_on_the_device",
        "every_argument_is_a_key_and_is_described",
        "numbers_have_limits",
    ),
    "careless": (
        "labels_are_whole_numbers_by_first_image",
        "two_calls_give_the_same_bytes_and_leave_no_trace",
        "several_radii_of_one_call_are_those_of_single_calls",
    ),
    "blind": (
        "labels_stay_labels",
        "two_calls_give_the_same_bytes_and_leave_no_trace",
        "restored_from_its_state_it_goes_on_with_the_same_bytes",
        "cameras_may_be_missing_or_one_or_the_key_is_named",
    ),
    "Crooked": (
        "ignored_images_get_no_gradient_and_a_batch_of_them_costs_nothing",
        "permuting_the_batch_permutes_the_gradient_only",
        "the_gradient_is_that_of_the_value",
        "degenerate_batches_have_a_finite_loss_and_gradient",
        "refined_features_follow_the_images_and_leave_them_alone",
        "two_calls_give_the_same_bytes_and_leave_no_trace",
    ),
    "lopsided": (
        "the_answer_is_symmetric_within_the_radius_and_holds_the_zeros_of_the_diagonal",
        "permuting_the_images_permutes_the_answer",
    ),
    "moody": (
        "two_trainings_give_the_same_bytes_and_leave_no_trace",
        "what_is_cut_off_goes_on_to_the_same_bytes",
        "training_changes_what_is_drawn",
        "images_are_as_many_as_asked_of_its_size_and_of_different_names",
        "too_few_photos_are_refused_with_their_number",
    ),
    "shortsighted": (
        "the_answer_is_a_graph_on_the_host_the_image_itself_first",
        "similarities_are_cosines_descending",
        "a_number_of_neighbours_that_cannot_be_is_refused",
    ),
}


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def parts_of(page: Path) -> str:
    """All blocks of a page that begin with `# my_parts.py`, as one file."""
    return "\n\n".join(b for b in python_blocks(page) if b.startswith("# my_parts.py"))


def registered_in(source: str) -> list[str]:
    """Names in the order of their classes; `register()` takes the class's own."""
    found = re.findall(r'\.register\((?:"(\w+)")?\)\nclass (\w+)', source)
    return [name or own for name, own in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean folder with the parts of each page."""
    made = tmp_path_factory.mktemp("parts")
    (made / "my_parts.py").write_text(parts_of(PAGE))
    (made / "readme_parts.py").write_text(parts_of(README))
    shutil.copy(Path(__file__).parent / "bad_parts.py", made)
    return made


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python WORDS` in the folder, as a user would run it."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "FASTREID_DATASETS": str(folder / "datasets"),
    }
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        text=True,
        timeout=600,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def contracts(folder: Path, modules: str, *more: str) -> subprocess.CompletedProcess[str]:
    """The documented command."""
    return python(
        folder,
        *("-m", "pytest", str(ROOT / "tests/contracts"), "--parts", modules),
        *("-p", "no:cacheprovider", "--tb=short", *more),
    )


def test_the_pages_show_a_part_of_every_family() -> None:
    assert registered_in(parts_of(README)) == ["frozen"]
    names = ["drifting", "complete", "two_cameras", "Alignment", "angle", "sorting", "strips"]
    assert registered_in(parts_of(PAGE)) == names


def test_the_examples_keep_the_contracts(folder: Path) -> None:
    done = contracts(folder, "my_parts,readme_parts", "-rp")
    assert done.returncode == 0, done.stdout[-6000:]
    tested = set(re.findall(r"PASSED .*\[(\w+)", done.stdout))
    assert tested == {*registered_in(parts_of(PAGE)), *registered_in(parts_of(README))}


def test_a_part_that_breaks_a_contract_fails_the_tests_of_it(folder: Path) -> None:
    done = contracts(folder, "bad_parts", "-rf", "--tb=no")
    assert done.returncode == 1, done.stdout[-6000:]
    failed = set(re.findall(r"FAILED .*::test_(\w+)\[(\w+)", done.stdout))
    missed = [
        (name, test)
        for name, tests in BROKEN.items()
        for test in tests
        if (test, name) not in failed
    ]
    assert missed == []


def test_a_module_without_a_part_is_an_error() -> None:
    with pytest.raises(pytest.UsageError, match="--parts shlex registers no part"):
        bring(["shlex"])


def test_the_readmes_python_runs(folder: Path) -> None:
    """Both snippets, with a tiny config in the place of the data set that is not here."""
    training, labelling = (
        next(block for block in python_blocks(README) if word in block)
        for word in ("DefaultTrainer(cfg)", "PseudoLabeler()(features)")
    )
    named = 'cfg.merge_from_file("Market1501/cc_R50")'
    assert named in training
    tiny = (
        f"cfg.merge_from_file({str(ROOT / 'configs/quick/usl_tiny.yml')!r})\n"
        f"cfg.merge_from_list({[*SHORT, 'OUTPUT_DIR', str(folder / 'python')]!r})"
    )
    features = "import torch\nfeatures = torch.randn(40, 8)\n"
    check = "assert labels.shape == (40,) and labels.dtype == 'int64'\n"
    code = training.replace(named, tiny) + features + labelling + check
    (folder / "readme.py").write_text(code)
    done = python(folder, "readme.py")
    assert done.returncode == 0, done.stdout[-6000:]
