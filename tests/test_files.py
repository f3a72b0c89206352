"""Files are written whole, or stay as they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastreid_cc.files import make_folder_atomically, write_atomically


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with write_atomically(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), write_atomically(path) as part:
        part.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_is_used_again(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.part").write_text("half, and longer than the new text")
    with write_atomically(tmp_path / "a.txt") as part:
        part.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
def test_a_full_disk_names_the_file_asked_for(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        with write_atomically(tmp_path / "a.txt") as part:
            part.write_text("new")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no/a.txt"):
        with write_atomically(tmp_path / "no" / "a.txt") as part:
            part.write_text("new")


def test_an_error_about_another_file_names_that_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other.txt"):
        with write_atomically(tmp_path / "a.txt"):
            (tmp_path / "other.txt").read_text()


def test_a_folder_appears_when_it_is_filled(tmp_path: Path) -> None:
    with make_folder_atomically(tmp_path / "a") as part:
        (part / "x").touch()
        assert not (tmp_path / "a").exists()
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["x"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755


def test_a_folder_that_came_first_stays_and_ours_is_removed(tmp_path: Path) -> None:
    with pytest.raises(OSError), make_folder_atomically(tmp_path / "a"):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "theirs").touch()
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["theirs"]


def test_an_interrupt_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), make_folder_atomically(tmp_path / "a") as part:
        (part / "x").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
