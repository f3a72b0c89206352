"""A gallery's folder: what its features are by, its threshold, and its shelf."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import ClearError, UnreadableFile, WrongUse, printable
from ..files import write_atomically
from .shelf import EdgeShelf, Shelf, server

FACTS = "gallery.json"


@dataclass
class Facts:
    """What stands in gallery.json.

    Args:
        size: numbers of a feature.
        model: the network as it was named. model_sha256: of the file its features are by.
        url: of a Qdrant server; "" = the shelf is in this folder. collection: its name there.
        threshold: cosine from which two images are called one individual; None = not calibrated.
        false_match_rate: expected share of images of new individuals that are given a name.
        miss_rate: expected share of images of known individuals not given theirs.
        calibrated_on: what the threshold is from, to be read by people.
    """

    size: int
    model: str
    model_sha256: str
    url: str = ""
    collection: str = ""
    threshold: float | None = None
    false_match_rate: float | None = None
    miss_rate: float | None = None
    calibrated_on: str = ""


def sha256(path: str | Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Store:
    """A gallery's folder.

    Args:
        folder: holds gallery.json, and the features unless they are on a server.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = self._read()
        self._shelf: Shelf | None = None

    def _read(self) -> Facts | None:
        path = self.folder / FACTS
        if not path.is_file():
            return None
        try:
            return Facts(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            reason = printable(error)
            raise UnreadableFile(f"{printable(path)} is no gallery's: {reason}") from error

    def known(self) -> Facts:
        """The facts.

        Raises:
            WrongUse: if the folder holds no gallery.
        """
        if self.facts is None:
            raise WrongUse(
                f"{printable(self.folder)} holds no gallery. `gallery add` makes one: name the"
                " network with --model."
            )
        return self.facts

    def save(self) -> None:
        """Writes gallery.json, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_atomically(self.folder / FACTS) as part:
            part.write_text(json.dumps(asdict(self.known()), indent=2) + "\n", encoding="utf-8")

    def claim(self, facts: Facts) -> None:
        """Makes the gallery, or sees that it is of the same network.

        Raises:
            WrongUse: if its features are by another one.
        """
        if self.facts is None:
            self.facts = facts
            self.save()
        elif self.facts.model_sha256 != facts.model_sha256:
            raise WrongUse(
                f"{printable(self.folder)} holds features of {printable(self.facts.model)}, these"
                f" are of {printable(facts.model)}: another file. Features of two networks cannot"
                " be compared; make another gallery."
            )
        elif self.facts.size != facts.size:
            raise ClearError(
                f"{printable(self.folder)} holds features of {self.facts.size} numbers, these have"
                f" {facts.size}. Give the options of the network that the first had."
            )

    @property
    def shelf(self) -> Shelf:
        """Opened when it is first asked for."""
        if self._shelf is None:
            facts = self.known()
            if facts.url:
                self._shelf = server(facts.url, facts.collection, facts.size)
            else:
                self._shelf = EdgeShelf(self.folder / "shelf", facts.size)
        return self._shelf

    def close(self) -> None:
        """Closes the shelf, if it was opened."""
        if self._shelf is not None:
            self._shelf.close()
            self._shelf = None
