"""Where features are kept: Qdrant Edge inside this process, or a Qdrant server; one interface.

Qdrant Edge (qdrant-edge-py, no dependencies) writes ahead before it changes anything, so a killed
process loses at most the batch it was writing; it lets one process at a time open a folder.
"""

from __future__ import annotations

import importlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..errors import ClearError, printable
from ..requirements import require_extra

BATCH = 1000  # points written, or read, at a time
NEVER = 2**31 - 1  # KiB of vectors from which Qdrant Edge would build an approximate index


class Match(NamedTuple):
    """One image of the gallery that answers: its individual, its path, its cosine."""

    individual: str
    image: str
    cosine: float


class Shelf(Protocol):
    """Features f32 [N, D] of unit length with an individual and an image each."""

    def add(self, features: np.ndarray, individuals: Sequence[str], images: Sequence[str]) -> None:
        """Adds images, or replaces those that are there under the same path."""

    def nearest(self, features: np.ndarray, k: int) -> list[list[Match]]:
        """The k images of largest cosine to each feature, best first; fewer if there are fewer."""

    def remove(self, field: str, value: str) -> int:
        """Removes the images whose "individual" or "image" is `value`; how many there were."""

    def sizes(self) -> dict[str, int]:
        """Individual -> number of its images, by name."""

    def everything(self) -> Iterator[tuple[np.ndarray, str, str]]:
        """(feature, individual, image) of all images."""

    def close(self) -> None:
        """Ends; nothing else may be called after it."""


def point_id(image: str) -> str:
    """The same id for the same path, so that adding twice changes nothing."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, image))


def _batches(count: int) -> Iterator[slice]:
    for start in range(0, count, BATCH):
        yield slice(start, start + BATCH)


def _points(
    made: Any, features: np.ndarray, individuals: Sequence[str], images: Sequence[str]
) -> list[Any]:
    """Points of either engine, `made` of an id, a vector and what else is kept."""
    return [
        made(
            id=point_id(image),
            vector=feature.tolist(),
            payload={"individual": who, "image": image},
        )
        for feature, who, image in zip(features, individuals, images, strict=True)
    ]


def _match(point: Any) -> Match:
    payload: Mapping[str, str] = point.payload
    return Match(payload["individual"], payload["image"], float(point.score))


def _by_name(hits: Sequence[Any]) -> dict[str, int]:
    """Of facet hits; a name all of whose images were removed stays in the index with none."""
    return dict(sorted((str(hit.value), int(hit.count)) for hit in hits if hit.count))


class EdgeShelf:
    """A folder of this machine, by Qdrant Edge; search is exact.

    Args:
        folder: made if it is not there.
        size: D; None = that of a folder that is there.
    Raises:
        ClearError: if another process has it open, or it is damaged.
    """

    def __init__(self, folder: Path, size: int | None = None) -> None:
        require_extra("gallery")
        qdrant_edge: Any = importlib.import_module("qdrant_edge")
        self.q = qdrant_edge
        try:
            if (folder / "edge_config.json").is_file():
                self.shard = qdrant_edge.EdgeShard.load(str(folder))
                return
            if size is None:
                raise ClearError(f"{printable(folder)}: there is no gallery yet.")
            vectors = qdrant_edge.EdgeVectorParams(size=size, distance=qdrant_edge.Distance.Dot)
            exact = qdrant_edge.EdgeOptimizersConfig(indexing_threshold=NEVER)
            config = qdrant_edge.EdgeConfig(vectors=vectors, optimizers=exact)
            folder.mkdir(parents=True, exist_ok=True)
            self.shard = qdrant_edge.EdgeShard.create(str(folder), config)
            for field in ("individual", "image"):
                keyword = qdrant_edge.PayloadSchemaType.Keyword
                self.shard.update(qdrant_edge.UpdateOperation.create_field_index(field, keyword))
        except ClearError:
            raise
        except Exception as error:  # it raises plain Exceptions
            reason = printable(error)[:200]
            busy = "another process has it open; a server serves several (docs/gallery.md)"
            text = busy if "WouldBlock" in reason else reason
            raise ClearError(f"{printable(folder)}: {text}.") from error

    def add(self, features: np.ndarray, individuals: Sequence[str], images: Sequence[str]) -> None:
        """See Shelf."""
        for rows in _batches(len(images)):
            points = _points(self.q.Point, features[rows], individuals[rows], images[rows])
            self.shard.update(self.q.UpdateOperation.upsert_points(points))
        self.shard.flush()

    def nearest(self, features: np.ndarray, k: int) -> list[list[Match]]:
        """See Shelf."""
        found: list[list[Match]] = []
        for rows in _batches(len(features)):
            asked = [
                self.q.QueryRequest(
                    limit=k, query=self.q.Query.Nearest(feature.tolist()), with_payload=True
                )
                for feature in features[rows]
            ]
            answers = self.shard.query_batch(self.q.QueryBatchRequest(asked))
            found += [[_match(point) for point in points] for points in answers]
        return found

    def remove(self, field: str, value: str) -> int:
        """See Shelf."""
        match = self.q.FieldCondition(key=field, match=self.q.MatchValue(value))
        chosen = self.q.Filter(must=[match])
        count = self.shard.count(self.q.CountRequest(filter=chosen))
        if count:
            self.shard.update(self.q.UpdateOperation.delete_points_by_filter(chosen))
            self.shard.flush()
        return int(count)

    def sizes(self) -> dict[str, int]:
        """See Shelf."""
        count = max(1, self.shard.count(self.q.CountRequest()))
        found = self.shard.facet(self.q.FacetRequest(key="individual", limit=count, exact=True))
        return _by_name(found.hits)

    def everything(self) -> Iterator[tuple[np.ndarray, str, str]]:
        """See Shelf."""
        offset = None
        while True:
            asked = self.q.ScrollRequest(
                offset=offset, limit=BATCH, with_payload=True, with_vector=True
            )
            points, offset = self.shard.scroll(asked)
            for point in points:
                feature = np.asarray(point.vector, np.float32)
                yield feature, point.payload["individual"], point.payload["image"]
            if offset is None:
                return

    def close(self) -> None:
        """See Shelf."""
        self.shard.close()


class ServerShelf:
    """A collection of a Qdrant server, by qdrant-client.

    Args:
        client: a `qdrant_client.QdrantClient`.
        collection: its name, made if it is not there.
        size: D.
    """

    def __init__(self, client: Any, collection: str, size: int) -> None:
        models: Any = importlib.import_module("qdrant_client.models")
        self.client, self.collection, self.m = client, collection, models
        if not client.collection_exists(collection):
            vectors = models.VectorParams(size=size, distance=models.Distance.DOT)
            client.create_collection(collection, vectors_config=vectors)
            for field in ("individual", "image"):
                client.create_payload_index(collection, field, models.PayloadSchemaType.KEYWORD)

    def add(self, features: np.ndarray, individuals: Sequence[str], images: Sequence[str]) -> None:
        """See Shelf."""
        for rows in _batches(len(images)):
            points = _points(self.m.PointStruct, features[rows], individuals[rows], images[rows])
            self.client.upsert(self.collection, points, wait=True)

    def nearest(self, features: np.ndarray, k: int) -> list[list[Match]]:
        """See Shelf."""
        found: list[list[Match]] = []
        for rows in _batches(len(features)):
            asked = [
                self.m.QueryRequest(query=feature.tolist(), limit=k, with_payload=True)
                for feature in features[rows]
            ]
            answers = self.client.query_batch_points(self.collection, asked)
            found += [[_match(point) for point in answer.points] for answer in answers]
        return found

    def remove(self, field: str, value: str) -> int:
        """See Shelf."""
        match = self.m.FieldCondition(key=field, match=self.m.MatchValue(value=value))
        chosen = self.m.Filter(must=[match])
        count = self.client.count(self.collection, count_filter=chosen, exact=True).count
        if count:
            selector = self.m.FilterSelector(filter=chosen)
            self.client.delete(self.collection, points_selector=selector, wait=True)
        return int(count)

    def sizes(self) -> dict[str, int]:
        """See Shelf."""
        count = max(1, self.client.count(self.collection, exact=True).count)
        found = self.client.facet(self.collection, key="individual", limit=count, exact=True)
        return _by_name(found.hits)

    def everything(self) -> Iterator[tuple[np.ndarray, str, str]]:
        """See Shelf."""
        offset = None
        while True:
            points, offset = self.client.scroll(
                self.collection, limit=BATCH, offset=offset, with_payload=True, with_vectors=True
            )
            for point in points:
                feature = np.asarray(point.vector, np.float32)
                yield feature, point.payload["individual"], point.payload["image"]
            if offset is None:
                return

    def close(self) -> None:
        """See Shelf."""
        self.client.close()


def server(url: str, collection: str, size: int) -> ServerShelf:
    """A collection of the Qdrant server at a URL; the key is in QDRANT_API_KEY, if it wants one.

    Raises:
        MissingPackage: without qdrant-client. ClearError: if nobody answers.
    """
    require_extra("gallery-server")
    qdrant_client: Any = importlib.import_module("qdrant_client")
    try:
        client = qdrant_client.QdrantClient(url=url, api_key=os.environ.get("QDRANT_API_KEY"))
        return ServerShelf(client, collection, size)
    except Exception as error:  # noqa: BLE001  of the network, of many kinds
        reason = printable(" ".join(str(error).split()))[:200]
        raise ClearError(f"{printable(url)}: {reason}") from error
