"""What the names of images mean: options of a folder of images, and the rules over paths.

What a name means is said by regular expressions over the path of an image relative to the folder
("001/02_5.png", separators "/"). A rule is either

* `""`: nothing is known,
* `"folder:0"`: the name of the first sub-folder (1: the second, …),
* `"file:tracks.csv"`: what a table says, below the folder or at an absolute path: its column of the
  rule's name ("tracklet", "time", …), in the row whose column `image` is the path; or
* a regular expression with one group or a group of the rule's name, e.g. `"_c(\\d+)"` or
  `"(?P<camera>cam[ab])"`; it is searched for, so anchor it where that matters.
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import BadConfig, printable
from ..registry import Part

RULES = ("camera", "identity", "tracklet", "time")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True, kw_only=True)
class FolderOptions(Part):
    """Where the images are and what their names mean.

    Config node CC.FOLDER; of labelled sources CC.SOURCES.FOLDERS.<NAME>.

    Args:
        root: folder of the images; a relative one lies below fastreid's data folder
            (FASTREID_DATASETS).
        include: regex; only matching images are trained on. "" = all.
        exclude: regex; matching images are used nowhere. "" = none.
        camera: rule for the camera. Not matching an image is an error.
        camera_sectors: (total, sectors): the camera text is a number 0..total-1 (a view angle, a
            frame) and is cut into that many equal sectors, e.g. (72, 4). Empty = as it is.
        identity: rule for the true identity. Of the target for evaluation and logged diagnostics
            only; of a folder of CC.SOURCES.FOLDERS it is what is learnt.
        tracklet: rule for the tracklet; with the camera it tells which images a tracker has put
            together. "" = unknown; an image it does not match is of no tracklet.
        time: rule for the time of an image within its camera, a number: a frame or seconds. "" =
            unknown; needs TRACKLET.
        query: folder of query images; relative to ROOT, or absolute. Never trained on.
        gallery: folder of gallery images, as QUERY.
        test_include: regex; matching images are test images instead (an alternative to folders).
            They are never trained on.
        query_cameras: test images of these cameras are queries ("01" and "1" are the same). Empty:
            the first image of each identity and camera, the others are gallery.
        gallery_cameras: test images of these cameras are gallery. Empty: all that are not queries.
        measure: "query": test images are divided as the two keys above say; "leave-one-out": each
            of TEST_INCLUDE that has an identity asks, all others answer.
        apart: with leave-one-out, which images of the query's own identity do not count, since they
            show it no other way: "image" the query alone, "camera" all of its camera; or a rule,
            all of whose text it shares (a viewpoint, a tracklet, a sighting). Those of others stay.
        max_bad_share: images that cannot be read are reported and left out up to this share of all;
            above it the run stops.
    """

    key = "CC.FOLDER"
    limits = {"max_bad_share": "[0, 1)", "measure": ("query", "leave-one-out")}

    root: str = ""
    include: str = ""
    exclude: str = ""
    camera: str = ""
    camera_sectors: tuple = ()
    identity: str = ""
    tracklet: str = ""
    time: str = ""
    query: str = ""
    gallery: str = ""
    test_include: str = ""
    query_cameras: tuple = ()
    gallery_cameras: tuple = ()
    measure: str = "query"
    apart: str = "image"
    max_bad_share: float = 0.05

    def __post_init__(self) -> None:
        faults = []
        rules = [*RULES, *(["apart"] if self.has_apart_rule else [])]
        for name in ("include", "exclude", "test_include", *rules):
            try:
                if name in rules:
                    self.rule(name)
                else:
                    _regex(self.key_of(name), getattr(self, name))
            except ValueError as error:
                faults.append(str(error))
        if bool(self.query) != bool(self.gallery):
            faults.append(
                f"{self.key_of('query')} and {self.key_of('gallery')} must be given together."
            )
        if self.query and self.test_include:
            faults.append(
                f"Give {self.key_of('query')} and {self.key_of('gallery')}, or TEST_INCLUDE, not"
                " both."
            )
        if (self.query_cameras or self.gallery_cameras) and not (self.test_include and self.camera):
            faults.append(
                f"{self.key_of('query_cameras')} and GALLERY_CAMERAS choose among the images of "
                "TEST_INCLUDE by their CAMERA: set both."
            )
        if (self.query or self.test_include) and not self.identity:
            faults.append(f"A test set needs true identities: set {self.key_of('identity')}.")
        if self.time and not self.tracklet:
            faults.append(
                f"{self.key_of('time')} says when tracklets were seen: set"
                f" {self.key_of('tracklet')} too."
            )
        faults += self._measuring_faults()
        sectors = self.camera_sectors
        if sectors and not (len(sectors) == 2 and 1 <= int(sectors[1]) <= int(sectors[0])):
            faults.append(f"{self.key_of('camera_sectors')}={sectors} must be (total, sectors).")
        if faults:
            raise ValueError("\n".join(faults))

    def _measuring_faults(self) -> list[str]:
        """What `measure` and `apart` do not fit."""
        measure, apart = self.key_of("measure"), self.key_of("apart")
        if self.measure != "leave-one-out":
            unread = self.apart != "image"
            return [f"{apart} is for {measure}=leave-one-out alone: set it."] if unread else []
        faults = []
        if not self.test_include or self.query_cameras or self.gallery_cameras:
            faults.append(
                f"{measure}=leave-one-out lets every image of TEST_INCLUDE ask and answer: set"
                " that, and neither QUERY, GALLERY, QUERY_CAMERAS nor GALLERY_CAMERAS."
            )
        if self.apart == "camera" and not self.camera:
            faults.append(f"{apart}=camera needs {self.key_of('camera')}.")
        return faults

    @property
    def has_apart_rule(self) -> bool:
        """Whether `apart` is read off the paths."""
        return self.apart not in ("image", "camera")

    def key_of(self, name: str) -> str:
        """The config key of an option."""
        return f"{self.key}.{name.upper()}"

    def rule(self, name: str, root: str | os.PathLike[str] = ".") -> Rule:
        """What reads one of `RULES`, or `apart`, off a path; a table lies below `root`.

        Raises:
            ValueError: if it is no rule.
        """
        return Rule(name, getattr(self, name), self.key_of(name), root)


def _regex(key: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{key}={text!r} is no regex: {error}.") from error


class Rule:
    """Reads one property off a path; see the module's text for the four forms.

    Args:
        name: of the property, and of its group in a regex.
        text: the rule.
        key: its config key, for messages.
        root: the folder of a table; it is read with the first path.
    """

    def __init__(
        self, name: str, text: str, key: str = "", root: str | os.PathLike[str] = "."
    ) -> None:
        self.name, self.text, self.key = name, text, key
        self.level: int | None = None
        self.regex: re.Pattern[str] | None = None
        self.file: Path | None = None
        self._said: dict[str, str] | None = None
        if text.startswith("file:"):
            self.file = Path(root, Path(text[5:]).expanduser())
        elif text.startswith("folder:"):
            if not text[7:].isdigit():
                raise ValueError(f"{key}={text!r}: after 'folder:' comes a level, 0, 1, ….")
            self.level = int(text[7:])
        elif text:
            self.regex = _regex(key, text)
            if name not in self.regex.groupindex and self.regex.groups != 1:
                raise ValueError(
                    f"{key}={text!r} needs one group in parentheses, or one named (?P<{name}>…)."
                )

    def __call__(self, path: str) -> str | None:
        """The property's text; None where the rule does not match."""
        if self.level is not None:
            parts = PurePosixPath(path).parts[:-1]
            return parts[self.level] if self.level < len(parts) else None
        if self.file is not None:
            if self._said is None:
                self._said = _column(self.file, self.name, f"{self.key}={self.text!r}")
            return self._said.get(path)
        if self.regex is None:
            return ""
        match = self.regex.search(path)
        if match is None:
            return None
        return match[self.name] if self.name in self.regex.groupindex else match[1]


def _column(file: Path, name: str, setting: str) -> dict[str, str]:
    """Image -> what a table says of it in one column; empty cells are left out.

    Raises:
        BadConfig: if there is no such table or column.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            return {row["image"]: row[name] for row in csv.DictReader(stream) if row[name]}
    except OSError as error:
        reason = printable(error.strerror)
        raise BadConfig(f"{setting}: {printable(file)} cannot be read: {reason}.") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise BadConfig(
            f"{setting}: {printable(file)} is no table with the columns image and {name}."
        ) from error


def list_images(root: Path) -> list[str]:
    """Paths of all images below `root`, relative to it, with "/", sorted by code point.

    Links are followed once: a folder that was visited (a loop, a second link) is not entered again.
    Hidden files and folders (".…", "__MACOSX") are left out.
    """
    found: list[str] = []
    visited: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(s for s in subfolders if not s.startswith((".", "__MACOSX")))
        base = Path(folder).relative_to(root)
        found += [
            (base / f).as_posix()
            for f in files
            if f.lower().endswith(EXTENSIONS) and not f.startswith(".")
        ]
    return sorted(found)


def plain(label: object) -> str:
    """Camera labels as compared: "01" and 1 are the same."""
    text = str(label)
    return str(int(text)) if text.isdigit() else text
