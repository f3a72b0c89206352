"""Any folder tree of images as a re-ID data set: no identities needed, cameras if there are any.

How names are read is in `naming`; what is done with images that cannot be read in `checks`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .checks import drop_bad
from .items import UNKNOWN, Item, Label, is_unknown, number
from .naming import EXTENSIONS, FolderOptions, Rule, key, list_images, plain

__all__ = ["FolderItems", "FolderOptions"]


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
            raise ValueError(f"{key('root')} is empty: name the folder of your images.")
        self.options = options
        self.root = Path(data_root, Path(options.root).expanduser())
        self._camera = Rule("camera", options.camera)
        self._identity = Rule("identity", options.identity)
        names = self._named(self.root, "root")
        aside = {
            part: self._named(Path(self.root, getattr(options, part)), part)
            for part in ("query", "gallery")
            if getattr(options, part)
        }
        train, test = self._divide(names, {p for listed in aside.values() for p in listed})
        if not train:
            raise ValueError(
                f"No image is left to train on of {len(names)} in {self.root}: see "
                f"{key('include')}={options.include!r}, EXCLUDE, TEST_INCLUDE, QUERY and GALLERY. "
                f"One image is {self.relative(names[0])!r}."
            )
        everything = sorted({*train, *test, *(p for listed in aside.values() for p in listed)})
        good = drop_bad(everything, options.max_bad_share, key("max_bad_share"), self.root)
        self._labels = {path: self._label(path) for path in everything if path in good}
        if options.identity and all(person is None for person, _ in self._labels.values()):
            raise ValueError(
                f"{key('identity')}={options.identity!r} matches no image, e.g. not "
                f"{self.relative(everything[0])!r}."
            )
        self.train = self._train([p for p in train if p in good])
        self.query, self.gallery = self._test(
            [p for p in test if p in good],
            {part: [p for p in listed if p in good] for part, listed in aside.items()},
        )

    def _named(self, folder: Path, name: str) -> list[str]:
        if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
            raise ValueError(f"{key(name)}={getattr(self.options, name)!r}: no folder {folder}.")
        names = [os.path.join(folder, n) for n in list_images(folder)]
        if self.options.exclude:
            names = [n for n in names if not re.search(self.options.exclude, self.relative(n))]
        if not names:
            raise ValueError(
                f"{key(name)}={getattr(self.options, name)!r}: no image ({', '.join(EXTENSIONS)}) "
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
                    f"{key('test_include')}={options.test_include!r} matches no image, "
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
            raise ValueError(f"{key('camera')}={self.options.camera!r} does not match {name!r}.")
        if self.options.camera_sectors and self.options.camera:
            total, sectors = (int(v) for v in self.options.camera_sectors)
            if not camera.isdigit() or int(camera) >= total:
                raise ValueError(
                    f"{key('camera_sectors')}={self.options.camera_sectors}: {camera!r} of "
                    f"{name!r} is no number in 0..{total - 1}."
                )
            camera = str(int(camera) * sectors // total)
        return self._identity(name) or None, plain(camera or 0)

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
        cameras_of: dict[Label, set[Label]] = {}
        for _, p, c in gallery:
            cameras_of.setdefault(p, set()).add(c)
        nameless = [path for path, p, _ in query if is_unknown(p)]
        if nameless:
            raise ValueError(
                f"{key('identity')}={self.options.identity!r} gives no identity to "
                f"{len(nameless)} of {len(query)} queries, e.g. {self.relative(nameless[0])!r}."
            )
        if not any(cameras_of.get(p, set()) - {c} for _, p, c in query):
            example = f", e.g. {self.relative(query[0][0])!r}" if query else ""
            raise ValueError(
                f"None of {len(query)} queries{example} has a match of another camera among "
                f"{len(gallery)} gallery images: see {key('identity')}, CAMERA, QUERY_CAMERAS and "
                "GALLERY_CAMERAS."
            )
