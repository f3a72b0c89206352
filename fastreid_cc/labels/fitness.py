"""How good features look without identities: clusters against Zipf's law, and other criteria.

None of them knows who is on an image, so each may choose settings, and each may be wrong: how far
one follows the hidden mAP has to be measured.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from .feature_figures import effective_rank

Shares = Literal["hard", "variance", "paper"]
SHARES: tuple[Shares, ...] = ("hard", "variance", "paper")
MOST = 2000  # images of the silhouette


def zipf(k: int, s: float) -> np.ndarray:
    """q_i = i^-s / sum of j^-s, f64 [k]: shares of k clusters by Zipf's law; s 0 = all equal.

    >>> zipf(3, 1.0).round(3)
    array([0.545, 0.273, 0.182])
    """
    weights = np.arange(1, k + 1, dtype=np.float64) ** -s
    return np.asarray(weights / weights.sum())


def kl_to_zipf(shares: np.ndarray, s: float) -> float:
    """KL(p || q) of shares p [k], sorted in descending order here, from Zipf's q; 0 log 0 is 0.

    Infinite if a share is no number or nothing is shared out.

    >>> round(kl_to_zipf(np.full(80, 1 / 80), 1.0), 6)
    0.641397
    """
    if not np.isfinite(shares).all() or shares.sum() <= 0:
        return math.inf
    p = np.sort(shares.astype(np.float64))[::-1] / shares.sum()
    q, kept = zipf(len(p), s), p > 0
    return float((p[kept] * np.log(p[kept] / q[kept])).sum())


def cluster_shares(features: np.ndarray, centroids: np.ndarray, how: Shares = "hard") -> np.ndarray:
    """Share of the images in each cluster, f64 [k].

    Args:
        features: [N, D]. centroids: [k, D].
        how: "hard": counts of the nearest centroid. "paper": mean of softmax(-|x - c|²), which on
            unit features spreads every image over all clusters. "variance": mean of
            softmax(-|x - c|² / 2σ²), σ² D the mean squared distance to the nearest centroid.

    Cost: N·k floats.
    """
    x, c = features.astype(np.float64), centroids.astype(np.float64)
    d = np.maximum(np.square(x).sum(1)[:, None] + np.square(c).sum(1) - 2 * x @ c.T, 0)
    if how == "hard":
        return np.bincount(d.argmin(1), minlength=len(c)) / len(x)
    least = d.min(1, keepdims=True)
    scale = 1.0 if how == "paper" else max(2 * float(least.mean()) / x.shape[1], 1e-12)
    p = np.exp(-(d - least) / scale)
    return np.asarray((p / p.sum(1, keepdims=True)).mean(0))


def criteria(
    features: np.ndarray,
    *,
    clusters: int,
    s: float = 1.0,
    shares: Shares = "hard",
    labels: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Label-free criteria of features, by name; of "fitness" lower is better.

    | name | better | what |
    |---|---|---|
    | fitness | lower | KL of the shares of k-means clusters from Zipf's law of exponent s |
    | kl_uniform, kl_zipf | lower | the same of counts, with s 0 and 1 |
    | silhouette | higher | of the k-means clusters, cosine, on 2,000 images at most |
    | stability | higher | agreement (ARI) of two k-means of other starts |
    | rank | higher | RankMe: exp of the entropy of the singular values |
    | outliers | lower | share of images that the run's own labelling left out |

    Features that are not finite give an infinite fitness, and nan elsewhere.

    Args:
        features: f32 [N, D], unit rows. clusters: k; the same for all features to be compared.
        labels: i64 [N] of the run, -1 = outlier; None where it clusters nothing. All of them
            outliers: an infinite fitness.

    Raises:
        ValueError: if there are fewer images than clusters.

    Cost: two k-means, 4 million cosines, a singular value decomposition. Sources: Piergiovanni et
    al., arXiv:2002.12177 (fitness; there "paper", s 1); Garrido et al., arXiv:2210.02885 (RankMe).
    """
    if len(features) < clusters:
        raise ValueError(f"{len(features)} images are fewer than {clusters} clusters.")
    found = {} if labels is None else {"outliers": float((labels < 0).mean())}
    names = ("fitness", "kl_uniform", "kl_zipf", "silhouette", "stability", "rank")
    if not np.isfinite(features).all():
        return {**dict.fromkeys(names, math.nan), "fitness": math.inf, **found}
    (one, centroids), (other, _) = (_kmeans(features, clusters, seed + i) for i in range(2))
    own = cluster_shares(features, centroids, shares)
    hard = cluster_shares(features, centroids)
    from sklearn.metrics import adjusted_rand_score

    values = (
        kl_to_zipf(own, s),
        kl_to_zipf(hard, 0.0),
        kl_to_zipf(hard, 1.0),
        _silhouette(features, one, seed),
        float(adjusted_rand_score(one, other)),
        effective_rank(features),
    )
    found = {**dict(zip(names, values, strict=True)), **found}
    if found.get("outliers") == 1.0:
        found["fitness"] = math.inf
    return found


def _kmeans(features: np.ndarray, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels i64 [N], centroids [k, D]); equal images may leave clusters empty."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than clusters
        model = KMeans(clusters, n_init=1, random_state=seed).fit(features.astype(np.float64))
    return model.labels_.astype(np.int64), model.cluster_centers_


def _silhouette(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """nan where the images drawn are of one cluster, or each of its own."""
    from sklearn.metrics import silhouette_score

    rows = np.random.default_rng(seed).permutation(len(features))[:MOST]
    count = len(np.unique(labels[rows]))
    if not 2 <= count < len(rows):
        return math.nan
    return float(silhouette_score(features[rows], labels[rows], metric="cosine"))
