"""Any folder tree of images as a re-ID data set: no identities needed, cameras if there are any.

How names are read is in `naming`; what is done with images that cannot be read in `checks`.
"""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BadConfig
from .checks import drop_bad
from .items import UNKNOWN, Item, Label, is_unknown, number
from .naming import EXTENSIONS, FolderOptions, list_images, plain

__all__ = ["FolderItems", "FolderOptions"]


RELATIVE = " A relative ROOT lies below FASTREID_DATASETS, QUERY and GALLERY below ROOT."


class FolderItems:
    """The three lists of a folder: `train`, `query` and `gallery` of (path, identity, camera).

    Args:
        options: what the names mean.
        data_root: what a relative `options.root` is relative to.
        read_images: False = only the names are read and checked, not whether images can be.

    Attributes:
        train: identities are strings: "folder_<identity>", or "unknown_<row>", one for each image,
            where nothing is known; cameras are strings "folder_<label>". Strings, as in fastreid's
            own training sets, so that several sets can be mixed. Only diagnostics may read them.
        query, gallery: identities and cameras are integers; an identity of -1 in the gallery is a
            distractor. Without CAMERA the queries have camera 0 and the gallery camera 1, so
            that the standard protocol (no match from the same camera) leaves the matches in. With
            MEASURE "leave-one-out" the queries are in the gallery too, and what stands for the
            camera is what APART says: stock evaluation leaves out images of the query's identity
            and "camera", so a number for each image leaves out the query alone.
        camera_of: the camera of every image, as the names say it.
        protocol: how the test images are measured, in a sentence; "" if there are none.
        tracks: path -> (tracklet with its camera, time or nan), for all images of a tracklet.

    Raises:
        BadConfig: nothing found, a rule that fits nothing, a query without identity, too many
            unreadable images; the message names the key and shows a path.

    Lists are sorted by relative path: row i is the same image on every machine. Cost: every image
    is decoded once per process to find damaged ones (JPEGs at an eighth of their size).
    """

    def __init__(
        self,
        options: FolderOptions,
        data_root: str | os.PathLike[str] = ".",
        *,
        read_images: bool = True,
    ) -> None:
        self._key = options.key_of
        if not options.root:
            raise BadConfig(f"{self._key('root')} is empty: name the folder of your images.")
        self.options = options
        self.root = Path(data_root, Path(options.root).expanduser())
        self._camera = options.rule("camera", self.root)
        self._identity = options.rule("identity", self.root)
        names = self._named(self.root, "root")
        query, gallery = (
            self._named(self.root / folder, part) if folder else []
            for part, folder in (("query", options.query), ("gallery", options.gallery))
        )
        train, test = self._divide(names, {*query, *gallery})
        if not train:
            raise BadConfig(
                f"No image is left to train on of {len(names)} in {self.root}: see "
                f"{self._key('include')}={options.include!r}, EXCLUDE, TEST_INCLUDE, QUERY and"
                f" GALLERY. One image is {self.relative(names[0])!r}."
            )
        everything = sorted({*train, *test, *query, *gallery})
        good = set(everything)
        if read_images:
            good = drop_bad(
                everything, options.max_bad_share, self._key("max_bad_share"), self.root
            )
        train, test, query, gallery = (
            [path for path in listed if path in good] for listed in (train, test, query, gallery)
        )
        self._labels = {path: self._label(path) for path in everything if path in good}
        if options.identity and all(person is None for person, _ in self._labels.values()):
            raise BadConfig(
                f"{self._key('identity')}={options.identity!r} matches no image, e.g. not "
                f"{self.relative(everything[0])!r}."
            )
        self.tracks = self._tracks(everything)
        self.train = self._train(train)
        if options.measure == "leave-one-out":
            self.gallery = self._set_apart(test)
            self.query = [item for item in self.gallery if not is_unknown(item[1])]
        else:
            if not options.query:
                query, gallery = self._choose(test)
            self.query, self.gallery = self._items(query, 0), self._items(gallery, 1)
        self.camera_of = {path: camera for path, (_, camera) in self._labels.items()}
        self.protocol = ""
        if self.query or self.gallery:
            self._require_matches(self.query, self.gallery)
            self.protocol = self._describe()

    def _named(self, folder: Path, name: str) -> list[str]:
        """Paths of the images below a folder, which the option `name` names."""
        setting = f"{self._key(name)}={getattr(self.options, name)!r}"
        if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
            below = "" if os.path.isabs(getattr(self.options, name)) else RELATIVE
            raise BadConfig(f"{setting}: no folder {folder}.{below}")
        names = [os.path.join(folder, n) for n in list_images(folder)]
        if self.options.exclude:
            names = [n for n in names if not re.search(self.options.exclude, self.relative(n))]
        if not names:
            raise BadConfig(f"{setting}: no image ({', '.join(EXTENSIONS)}) in {folder}.")
        return names

    def relative(self, path: str) -> str:
        """The path as the rules see it: below `root`, or from the test folder's own name on."""
        tests = [self.root / name for name in (self.options.query, self.options.gallery) if name]
        for folder, base in ((self.root, self.root), *((test, test.parent) for test in tests)):
            if Path(path).is_relative_to(folder):
                return Path(path).relative_to(base).as_posix()
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
                raise BadConfig(
                    f"{self._key('test_include')}={options.test_include!r} matches no image, "
                    f"e.g. not {self.relative(rest[0])!r}."
                )
        held = set(test)
        left = [n for n in rest if n not in held]
        return [n for n in left if re.search(options.include, self.relative(n))], test

    def _label(self, path: str) -> tuple[str | None, str]:
        """(identity or None, camera) of one image."""
        name = self.relative(path)
        camera = self._camera(name)
        if camera is None:
            raise BadConfig(
                f"{self._key('camera')}={self.options.camera!r} does not match {name!r}."
            )
        if self.options.camera_sectors and self.options.camera:
            total, sectors = (int(v) for v in self.options.camera_sectors)
            if not camera.isdigit() or int(camera) >= total:
                raise BadConfig(
                    f"{self._key('camera_sectors')}={self.options.camera_sectors}: {camera!r} of "
                    f"{name!r} is no number in 0..{total - 1}."
                )
            camera = str(int(camera) * sectors // total)
        return self._identity(name) or None, plain(camera or 0)

    def _tracks(self, paths: Sequence[str]) -> dict[str, tuple[str, float]]:
        """The tracklet and the time of every good image that has a tracklet."""
        options, found = self.options, {}
        tracklet, time = options.rule("tracklet", self.root), options.rule("time", self.root)
        for path in paths if options.tracklet else ():
            name = self.relative(path)
            text = tracklet(name)
            if text and path in self._labels:
                when = time(name)
                try:
                    found[path] = f"{self._labels[path][1]}/{text}", float(when or "nan")
                except ValueError as error:
                    raise BadConfig(
                        f"{self._key('time')}={options.time!r} reads {when!r} off {name!r}, which"
                        " is no number."
                    ) from error
        silent = "tracklet" if options.tracklet and not found else ""
        if found and options.time and all(math.isnan(when) for _, when in found.values()):
            silent = "time"
        if silent:
            raise BadConfig(
                f"{self._key(silent)}={getattr(options, silent)!r} matches no image, e.g. not "
                f"{self.relative(paths[0])!r}."
            )
        return found

    def _train(self, names: list[str]) -> list[Item]:
        labels = [self._labels[name] for name in names]
        return [
            (name, f"{UNKNOWN}_{row:07d}" if p is None else f"folder_{p}", f"folder_{camera}")
            for row, (name, (p, camera)) in enumerate(zip(names, labels, strict=True))
        ]

    def _items(self, names: list[str], unknown_camera: int) -> list[Item]:
        """Test images, with identities and cameras numbered over all images of the folder."""
        _, people = number(p for p, _ in self._labels.values() if p is not None)
        _, cameras = number(int(c) if c.isdigit() else c for _, c in self._labels.values())
        person_of: dict[Any, int] = {None: -1, **{p: i for i, p in enumerate(people)}}
        camera_of = {str(c): i for i, c in enumerate(cameras)}
        items: list[Item] = []
        for name in names:
            person, camera = self._labels[name]
            known_camera = camera_of[camera] if self.options.camera else unknown_camera
            items.append((name, person_of[person], known_camera))
        return items

    def _set_apart(self, names: list[str]) -> list[Item]:
        """Test images that all ask and answer; in the camera's place what APART tells apart."""
        items, options = self._items(names, 0), self.options
        if options.apart == "camera":
            return items
        texts: list[str | None] = [str(row) for row in range(len(items))]
        if options.has_apart_rule:
            rule = options.rule("apart", self.root)
            texts = [rule(self.relative(name)) for name in names]
            if None in texts:
                raise BadConfig(
                    f"{self._key('apart')}={options.apart!r} does not match"
                    f" {self.relative(names[texts.index(None)])!r}."
                )
        numbers = number(str(text) for text in texts)[0].tolist()
        return [(path, p, n) for (path, p, _), n in zip(items, numbers, strict=True)]

    def _describe(self) -> str:
        options = self.options
        if options.measure == "query":
            same = "and camera " if options.camera else "are never of its own folder and "
            return (
                f"protocol: {len(self.query):,} queries, {len(self.gallery):,} gallery images;"
                f" images of the query's identity {same}do not count"
            )
        what = {
            "image": "the query itself does",
            "camera": "images of the query's identity and camera do",
        }.get(options.apart, f"images of the query's identity and {options.apart!r} do")
        return (
            f"protocol: leave-one-out, {len(self.query):,} test images ask and"
            f" {len(self.gallery):,} answer; {what} not count"
        )

    def _choose(self, names: list[str]) -> tuple[list[str], list[str]]:
        """Queries and gallery among the test images."""
        wanted = {plain(c) for c in self.options.query_cameras}
        others = {plain(c) for c in self.options.gallery_cameras}
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
        cameras_of: dict[Label, set[Label]] = defaultdict(set)
        for _, p, c in gallery:
            cameras_of[p].add(c)
        nameless = [path for path, p, _ in query if is_unknown(p)]
        if nameless:
            raise BadConfig(
                f"{self._key('identity')}={self.options.identity!r} gives no identity to "
                f"{len(nameless)} of {len(query)} queries, e.g. {self.relative(nameless[0])!r}."
            )
        if not any(cameras_of[p] - {c} for _, p, c in query):
            example = f", e.g. {self.relative(query[0][0])!r}" if query else ""
            raise BadConfig(
                f"None of {len(query)} queries{example} has a match of another camera among "
                f"{len(gallery)} gallery images: see {self._key('identity')}, CAMERA, QUERY_CAMERAS"
                " and GALLERY_CAMERAS."
            )
