"""Any folder tree of images as a re-ID data set: no identities needed, cameras if there are any.

What a name means is said by regular expressions over the path of an image relative to the folder
("001/02_5.png", separators "/"). A rule is either

* `""`: nothing is known,
* `"folder:0"`: the name of the first sub-folder (1: the second, …), or
* a regular expression with one group or a group of the rule's name, e.g. `"_c(\\d+)"` or
  `"(?P<camera>cam[ab])"`; it is searched for, so anchor it where that matters.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .checks import drop_bad
from .items import UNKNOWN, Item, number

logger = logging.getLogger("fastreid.cc.folder")

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class FolderOptions:
    """Where the images are and what their names mean (config node CC.FOLDER).

    Args:
        root: the folder; a relative one lies below fastreid's data folder (FASTREID_DATASETS).
        include: regex; only matching images are trained on. "" = all.
        exclude: regex; matching images are used nowhere. "" = none.
        camera: rule for the camera. Not matching an image is an error.
        camera_sectors: (total, sectors): the camera text is a number 0..total-1 (a view angle, a
            frame) and is cut into that many equal sectors, e.g. (72, 4). Empty = as it is.
        identity: rule for the true identity; for evaluation and logged diagnostics only.
        query: folder of query images; relative to `root`, or absolute. Never trained on.
        gallery: folder of gallery images, likewise.
        test_include: regex; matching images are test images instead (an alternative to folders).
            They are never trained on.
        query_cameras: test images of these cameras are queries ("01" and "1" are the same). Empty:
            the first image of each identity and camera, the others are gallery.
        gallery_cameras: test images of these cameras are gallery. Empty: all that are not queries.
        max_bad_share: images that cannot be read are reported and left out up to this share of all;
            above it the run stops.
    """

    root: str = ""
    include: str = ""
    exclude: str = ""
    camera: str = ""
    camera_sectors: tuple = ()
    identity: str = ""
    query: str = ""
    gallery: str = ""
    test_include: str = ""
    query_cameras: tuple = ()
    gallery_cameras: tuple = ()
    max_bad_share: float = 0.05

    def __post_init__(self) -> None:
        faults = []
        for name in ("include", "exclude", "test_include"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                faults.append(f"{_key(name)}={getattr(self, name)!r} is no regex: {error}.")
        for name in ("camera", "identity"):
            try:
                _Rule(name, getattr(self, name))
            except ValueError as error:
                faults.append(str(error))
        if bool(self.query) != bool(self.gallery):
            faults.append(f"{_key('query')} and {_key('gallery')} must be given together.")
        if self.query and self.test_include:
            faults.append(f"Give {_key('query')} and {_key('gallery')}, or TEST_INCLUDE, not both.")
        if (self.query_cameras or self.gallery_cameras) and not (self.test_include and self.camera):
            faults.append(
                f"{_key('query_cameras')} and GALLERY_CAMERAS choose among the images of "
                "TEST_INCLUDE by their CAMERA: set both."
            )
        if (self.query or self.test_include) and not self.identity:
            faults.append(f"A test set needs true identities: set {_key('identity')}.")
        if not 0 <= self.max_bad_share < 1:
            faults.append(f"{_key('max_bad_share')}={self.max_bad_share} must lie in [0, 1).")
        sectors = self.camera_sectors
        if sectors and not (len(sectors) == 2 and 1 <= int(sectors[1]) <= int(sectors[0])):
            faults.append(f"{_key('camera_sectors')}={sectors} must be (total, sectors).")
        if faults:
            raise ValueError("\n".join(faults))


def _key(name: str) -> str:
    return f"CC.FOLDER.{name.upper()}"


class _Rule:
    """Reads one property off a path; see the module's text for the three forms."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.level: int | None = None
        self.regex: re.Pattern[str] | None = None
        if text.startswith("folder:"):
            if not text[7:].isdigit():
                raise ValueError(f"{_key(name)}={text!r}: after 'folder:' comes a level, 0, 1, ….")
            self.level = int(text[7:])
        elif text:
            try:
                self.regex = re.compile(text)
            except re.error as error:
                raise ValueError(f"{_key(name)}={text!r} is no regex: {error}.") from error
            if name not in self.regex.groupindex and self.regex.groups != 1:
                raise ValueError(
                    f"{_key(name)}={text!r} needs one group in parentheses, or one named "
                    f"(?P<{name}>…)."
                )

    def __call__(self, path: str) -> str | None:
        """The property's text; None where the rule does not match."""
        if self.level is not None:
            parts = PurePosixPath(path).parts[:-1]
            return parts[self.level] if self.level < len(parts) else None
        if self.regex is None:
            return ""
        match = self.regex.search(path)
        if match is None:
            return None
        return match[self.name] if self.name in self.regex.groupindex else match[1]


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


def _plain(label: object) -> str:
    """Camera labels as compared: "01" and 1 are the same."""
    text = str(label)
    return str(int(text)) if text.isdigit() else text


class FolderItems:
    """The three lists of a folder: `train`, `query` and `gallery` of (path, identity, camera).

    Args:
        options: what the names mean.
        data_root: what a relative `options.root` is relative to.

    Attributes:
        train: identities are strings: "folder_<identity>", or "unknown_<row>", one for each image,
            where nothing is known; cameras are strings "folder_<label>". Strings, as in fastreid's
            own training sets, so that several sets can be mixed. Only diagnostics may read them.
        query, gallery: identities and cameras are integers; an identity of -1 in the gallery is a
            distractor. Without CAMERA the queries have camera 0 and the gallery camera 1, so
            that the standard protocol (no match from the same camera) leaves the matches in.

    Raises:
        ValueError: nothing found, a rule that fits nothing, a query without identity, too many
            unreadable images; the message names the key and shows a path.

    Lists are sorted by relative path: row i is the same image on every machine. Cost: every image
    is decoded once per process to find damaged ones (JPEGs at an eighth of their size).
    """

    def __init__(self, options: FolderOptions, data_root: str | os.PathLike[str] = ".") -> None:
        if not options.root:
            raise ValueError(f"{_key('root')} is empty: name the folder of your images.")
        self.options = options
        self.root = Path(data_root, Path(options.root).expanduser())
        self._camera, self._identity = (
            _Rule("camera", options.camera),
            _Rule("identity", options.identity),
        )
        names = self._named(self.root, "root")
        aside = {
            key: self._named(Path(self.root, getattr(options, key)), key)
            for key in ("query", "gallery")
            if getattr(options, key)
        }
        train, test = self._divide(names, {p for listed in aside.values() for p in listed})
        if not train:
            raise ValueError(
                f"No image is left to train on of {len(names)} in {self.root}: see "
                f"{_key('include')}, EXCLUDE, TEST_INCLUDE, QUERY and GALLERY."
            )
        everything = sorted({*train, *test, *(p for listed in aside.values() for p in listed)})
        good = drop_bad(everything, options.max_bad_share, _key("max_bad_share"), self.root)
        self._labels = {path: self._label(path) for path in everything if path in good}
        self.train = self._train([p for p in train if p in good])
        self.query, self.gallery = self._test(
            [p for p in test if p in good],
            {key: [p for p in listed if p in good] for key, listed in aside.items()},
        )

    def _named(self, folder: Path, key: str) -> list[str]:
        if not folder.is_dir():
            raise ValueError(f"{_key(key)}={getattr(self.options, key)!r}: no folder {folder}.")
        names = [os.path.join(folder, name) for name in list_images(folder)]
        if self.options.exclude:
            names = [n for n in names if not re.search(self.options.exclude, self.relative(n))]
        if not names:
            raise ValueError(
                f"{_key(key)}={getattr(self.options, key)!r}: no image ({', '.join(EXTENSIONS)}) "
                f"in {folder}."
            )
        return names

    def relative(self, path: str) -> str:
        """The path as the rules see it: below `root`, or from the test folder's own name on."""
        try:
            return Path(path).relative_to(self.root).as_posix()
        except ValueError:
            pass
        for name in (self.options.query, self.options.gallery):
            folder = Path(self.root, name)
            if name and folder in Path(path).parents:
                return Path(path).relative_to(folder.parent).as_posix()
        return Path(path).as_posix()

    def _divide(self, names: Sequence[str], aside: set[str]) -> tuple[list[str], list[str]]:
        """(train, test) paths; images of the query and gallery folders are in neither."""
        options = self.options
        same = {os.path.realpath(p) for p in aside}
        rest = [n for n in names if n not in aside and os.path.realpath(n) not in same]
        test = []
        if options.test_include:
            test = [n for n in rest if re.search(options.test_include, self.relative(n))]
            if not test:
                raise ValueError(
                    f"{_key('test_include')}={options.test_include!r} matches no image, "
                    f"e.g. not {self.relative(rest[0])!r}."
                )
        held = set(test)
        train = [n for n in rest if n not in held and re.search(options.include, self.relative(n))]
        return train, test

    def _label(self, path: str) -> tuple[str | None, str]:
        """(identity or None, camera) of one image."""
        name = self.relative(path)
        camera = self._camera(name)
        if camera is None:
            raise ValueError(f"{_key('camera')}={self.options.camera!r} does not match {name!r}.")
        if self.options.camera_sectors and self.options.camera:
            total, sectors = (int(v) for v in self.options.camera_sectors)
            if not camera.isdigit() or int(camera) >= total:
                raise ValueError(
                    f"{_key('camera_sectors')}={self.options.camera_sectors}: {camera!r} of "
                    f"{name!r} is no number in 0..{total - 1}."
                )
            camera = str(int(camera) * sectors // total)
        return self._identity(name) or None, _plain(camera or 0)

    def _train(self, names: list[str]) -> list[Item]:
        items: list[Item] = []
        for row, name in enumerate(names):
            identity, camera = self._labels[name]
            person = f"{UNKNOWN}_{row:07d}" if identity is None else f"folder_{identity}"
            items.append((name, person, f"folder_{camera}"))
        return items

    def _test(self, names: list[str], aside: dict[str, list[str]]) -> tuple[list[Item], list[Item]]:
        if aside:
            query, gallery = aside["query"], aside["gallery"]
        else:
            query, gallery = self._choose(names)
        if not query and not gallery:
            return [], []
        _, people = number(p for p, _ in self._labels.values() if p is not None)
        _, cameras = number(int(c) if c.isdigit() else c for _, c in self._labels.values())
        person_of = {p: i for i, p in enumerate(people)}
        camera_of = {str(c): i for i, c in enumerate(cameras)}

        def items(listed: list[str], unknown_camera: int) -> list[Item]:
            rows: list[Item] = []
            for path in listed:
                person, camera = self._labels[path]
                number_ = camera_of[camera] if self.options.camera else unknown_camera
                rows.append((path, -1 if person is None else person_of[person], number_))
            return rows

        queries, others = items(query, 0), items(gallery, 1)
        self._require_matches(queries, others)
        return queries, others

    def _choose(self, names: list[str]) -> tuple[list[str], list[str]]:
        """Queries and gallery among the test images."""
        wanted = {_plain(c) for c in self.options.query_cameras}
        others = {_plain(c) for c in self.options.gallery_cameras}
        seen: set[tuple[str | None, str]] = set()
        query, gallery = [], []
        for name in names:
            person, camera = self._labels[name]
            first = person is not None and (person, camera) not in seen
            seen.add((person, camera))
            is_query = camera in wanted if wanted else first and camera not in others
            if is_query:
                query.append(name)
            if camera in others if others else not is_query:
                gallery.append(name)
        return query, gallery

    def _require_matches(self, query: list[Item], gallery: list[Item]) -> None:
        """Evaluation must have something to count; fastreid would stop with a bare assertion."""
        pairs = {(p, c) for _, p, c in gallery}
        cameras_of: dict[int, set[int]] = {}
        for p, c in pairs:
            cameras_of.setdefault(p, set()).add(c)
        nameless = [path for path, p, _ in query if p < 0]
        if nameless:
            raise ValueError(
                f"{_key('identity')}={self.options.identity!r} gives no identity to "
                f"{len(nameless)} of {len(query)} queries, e.g. {self.relative(nameless[0])!r}."
            )
        if not any(cameras_of.get(p, set()) - {c} for _, p, c in query):
            example = f", e.g. {self.relative(query[0][0])!r}" if query else ""
            raise ValueError(
                f"None of {len(query)} queries{example} has a match of another camera among "
                f"{len(gallery)} gallery images: see {_key('identity')}, CAMERA, QUERY_CAMERAS and "
                "GALLERY_CAMERAS."
            )
