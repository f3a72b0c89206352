"""A map of the training images in the plane: near each other where the network sees them so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .charts import COLORS, INK, SIZE, canvas, to_svg
from .clusters import ClusterStats, spread
from .runs import Clustered

MAX_IMAGES = 1500
FEWEST = 12
MARKERS = ("o", "s", "^", "D")


def positions(features: np.ndarray) -> np.ndarray:
    """f64 [N, 2] of features f32 [N, D], by t-SNE; the same numbers every time.

    One thread, since sums of several come out in another order each time. Cost: O(N log N) time a
    step, 1,000 steps: ten seconds for 1,500 images. Source: van der Maaten and Hinton, Visualizing
    Data using t-SNE, JMLR 2008.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        few = min(50, *features.shape)
        reduced = PCA(few, svd_solver="full", random_state=0).fit_transform(features)
        wide = min(30.0, (len(features) - 1) / 4)
        made = TSNE(perplexity=wide, init="pca", random_state=0, n_jobs=1)
        return made.fit_transform(reduced).astype(float)


def draw(images: Clustered, stats: ClusterStats, named: Sequence[int], name: str) -> str | None:
    """The map as SVG; None of too few images.

    A cluster is a colour and a shape, not one of its own; `named` ones have their number. Outliers
    are grey points, images of another identity than their cluster's most frequent one are crossed.
    """
    rows = spread(np.arange(len(images.paths)), MAX_IMAGES)
    if len(rows) < FEWEST:
        return None
    labels, places = images.labels[rows], positions(images.features[rows])
    x, y = places.T
    size = 16 if len(rows) < 600 else 9
    with canvas(SIZE[0] * 0.8) as (figure, axes):
        axes.scatter(x[labels < 0], y[labels < 0], s=size / 2, color=INK, alpha=0.35, linewidths=0)
        for look in range(len(COLORS) * len(MARKERS)):
            mine = (labels >= 0) & (labels % (len(COLORS) * len(MARKERS)) == look)
            color, marker = COLORS[look % len(COLORS)], MARKERS[look // len(COLORS)]
            axes.scatter(
                x[mine], y[mine], s=size, color=color, marker=marker, linewidths=0, alpha=0.85
            )
        odd = [
            i
            for i, (row, label) in enumerate(zip(rows, labels, strict=True))
            if label >= 0 and stats.same_identity(images, int(row), int(label)) is False
        ]
        axes.scatter(x[odd], y[odd], s=2.2 * size, color=INK, marker="x", linewidths=0.9)
        for cluster in named:
            if (labels == cluster).any():
                at = np.median(places[labels == cluster], axis=0)
                axes.annotate(str(cluster), at, ha="center", va="center", weight="bold")
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        return to_svg(figure, name)
