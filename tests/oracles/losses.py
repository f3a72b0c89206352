"""Slow restatements of the memories and losses: loops over samples, in the papers' symbols."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

import fastreid_cc.losses
import fastreid_cc.memories  # noqa: F401
from fastreid_cc.memories.cluster import ClusterMemory
from fastreid_cc.registry import LOSSES, MEMORIES
from fastreid_cc.structures import Batch


def make_batch(features, targets, cameras=None, indices=None, domains=None):
    zeros = torch.zeros(len(targets), dtype=torch.int64)
    return Batch(
        features,
        targets,
        zeros if indices is None else indices,
        zeros if cameras is None else cameras,
        domains,
    )


def teach(batch, memory, seed=9):
    """The batch with a teacher: one fixed feature per target, so no gradient passes through it.

    Cameras stand for views; maps are made of the features.
    """
    batch = in_views(batch, batch.cameras)
    table = 3 * unit_rows(8, batch.features.shape[1], seed=seed)
    taught = table[batch.targets]
    logits = None if memory is None else memory.logits(unit(taught), batch)
    return replace(batch, teacher_features=taught, teacher_logits=logits)


def filled(rows, **kwargs):
    """A cluster memory with the given rows."""
    memory = ClusterMemory(**kwargs)
    memory.reset(rows, torch.arange(len(rows)))
    return memory


def unit_rows(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def sequential_update(M: Tensor, y: Tensor, f: Tensor, m: float) -> Tensor:
    """Every sample in batch order: M_y <- unit(m M_y + (1 - m) f). Returns a new memory."""
    M = M.clone()
    for i in range(len(y)):
        if y[i] >= 0:
            M[y[i]] = unit(m * M[y[i]] + (1 - m) * f[i])
    return M


def hard_update(M: Tensor, y: Tensor, f: Tensor, m: float) -> Tensor:
    """Per row, the sample least similar to it; the first of equals."""
    new = M.clone()
    for c in sorted({int(c) for c in y if c >= 0}):
        members = [i for i in range(len(y)) if y[i] == c]
        hardest = min(members, key=lambda i: float(f[i] @ M[c]))
        new[c] = unit(m * M[c] + (1 - m) * f[hardest])
    return new


def mean_update(M: Tensor, y: Tensor, f: Tensor, m: float, *, unit_means: bool = False) -> Tensor:
    """Per row, the mean of its samples."""
    new = M.clone()
    for c in sorted({int(c) for c in y if c >= 0}):
        mean = sum(f[i] for i in range(len(y)) if y[i] == c) / sum(int(v == c) for v in y)
        new[c] = unit(m * M[c] + (1 - m) * (unit(mean) if unit_means else mean))
    return new


def memory_contrast(
    x: Tensor, M: Tensor, y: Tensor, t: float, mask: Tensor | None = None
) -> Tensor:
    """Mean of -log softmax over the rows that `mask` keeps."""
    total, count = x.new_zeros(()), 0
    for i in range(len(x)):
        if y[i] < 0:
            continue
        f = unit(x[i])
        kept = [j for j in range(len(M)) if mask is None or mask[i, j]]
        z = [f @ M[j] / t for j in kept]
        total = total - f @ M[y[i]] / t + torch.stack(z).logsumexp(0)
        count += 1
    return total / max(count, 1)


def camera_entropy_weights(y: Tensor, cameras: Tensor) -> Tensor:
    """w = P e^{H_c} / sum e^H with H in bits over the cameras of a cluster in the batch."""
    H = {}
    for c in {int(c) for c in y if c >= 0}:
        cams = [int(k) for k, t in zip(cameras, y, strict=True) if t == c]
        shares = [cams.count(k) / len(cams) for k in set(cams)]
        H[c] = -sum(p * math.log2(p) for p in shares)
    total = sum(math.exp(h) for h in H.values())
    weights = [len(H) * math.exp(H[int(c)]) / total if c >= 0 else 0.0 for c in y]
    return torch.tensor(weights, dtype=torch.float64)


def hybrid_contrast(x: Tensor, rows: Tensor, classes: Tensor, y: Tensor, t: float, eps: float):
    """SpCL: mean of -log(q + eps), q = exp z_y / (sum exp z + eps), z = f . mean of rows / t."""
    means = [rows[classes == c].mean(0) for c in range(int(classes.max()) + 1)]
    total = x.new_zeros(())
    for i in range(len(x)):
        z = torch.stack([unit(x[i]) @ C / t for C in means])
        total = total - (z[y[i]].exp() / (z.exp().sum() + eps) + eps).log()
    return total / len(x)


def cap(x, rows, row_cluster, row_camera, y, cameras, t, inter_weight, negatives):
    """CAP: sum over cameras of the mean over their images of intra + inter_weight * inter."""
    total = x.new_zeros(())
    for camera in sorted(set(cameras.tolist())):
        members = [i for i in range(len(x)) if cameras[i] == camera and y[i] >= 0]
        for i in members:
            z = {p: unit(x[i]) @ rows[p] / t for p in range(len(rows))}
            near = [p for p in z if row_camera[p] == camera]
            own = next(p for p in near if row_cluster[p] == y[i])
            intra = torch.stack([z[p] for p in near]).logsumexp(0) - z[own]
            P = [p for p in z if row_cluster[p] == y[i]]
            others = sorted((p for p in z if p not in P), key=lambda p: -float(z[p]))
            log_sum = torch.stack([z[p] for p in P + others[:negatives]]).logsumexp(0)
            inter = sum(log_sum - z[p] for p in P) / len(P)
            total = total + (intra + inter_weight * inter) / len(members)
    return total


def two_head(z: Tensor, y: Tensor, k: float, alpha: float) -> Tensor:
    """Average-K: cross-entropy + binary cross-entropy with the candidates, mean over images."""
    B, L = z.shape
    p = z.detach().softmax(1)
    v = sorted((float(s) for row in p for s in row), reverse=True)
    n = round(B * k)
    lam = (v[n - 1] + v[n]) / 2
    total = z.new_zeros(())
    for i in range(B):
        total = total - z[i].log_softmax(0)[y[i]]
        S = [j for j in range(L) if p[i, j] >= lam or j == y[i]]
        bias = head_bias(torch.stack([z[i, j] for j in range(L) if j not in S]), L, k)
        for j in range(L):
            u = z[i, j] - bias
            if j == y[i]:
                total = total - u.sigmoid().log()
            elif p[i, j] >= lam:
                total = total - alpha * u.sigmoid().log()
            else:
                total = total - (1 - u.sigmoid()).log()
    return total / B


def head_bias(negatives: Tensor, L: int, k: float) -> float:
    """Log of the mean of exp z over the classes outside the set, and log(L / k); a constant."""
    return math.log(float(negatives.detach().exp().mean())) + math.log(L / k)


def memory_by_name(name: str, **kwargs):
    """A registered memory, reset on 30 images with 5 clusters, outliers and 3 cameras; epoch 5."""
    if name == "instance":
        kwargs = {"init": "features"} | kwargs
    memory = MEMORIES.get(name)(**kwargs)
    labels = torch.arange(30) % 6 - 1
    memory.reset(unit_rows(30, 8), labels, cameras=torch.arange(30) % 7 % 3)
    memory.set_epoch(5)
    return memory


def soft_contrast(x: Tensor, M: Tensor, y: Tensor, t: float, z_teacher: Tensor) -> Tensor:
    """MMT: mean of -sum_c p_c log q_c, p the teacher's softmax, q the network's."""
    total, count = x.new_zeros(()), 0
    for i in range(len(x)):
        if y[i] < 0:
            continue
        z = torch.stack([unit(x[i]) @ row / t for row in M])
        p, q = z_teacher[i].exp() / z_teacher[i].exp().sum(), z.exp() / z.exp().sum()
        total = total - sum(p[c] * q[c].log() for c in range(len(M)))
        count += 1
    return total / max(count, 1)


def soft_triplet(x: Tensor, taught: Tensor, y: Tensor) -> Tensor:
    """MMT: cross-entropy of exp(d-) / (exp(d+) + exp(d-)), on the network's hardest pairs."""

    def share(f, i, p, n):
        near, far = (f[i] - f[n]).norm(), (f[i] - f[p]).norm() if p != i else f.new_tensor(1e-6)
        return near.exp() / (far.exp() + near.exp())

    total, count = x.new_zeros(()), 0
    for i in range(len(x)):
        if y[i] < 0:
            continue
        count += 1
        others = [j for j in range(len(x)) if y[j] >= 0 and y[j] != y[i]]
        if not others:
            continue
        same = [j for j in range(len(x)) if y[j] == y[i]]
        p = max(same, key=lambda j: float((x[i] - x[j]).detach().norm()))
        n = min(others, key=lambda j: float((x[i] - x[j]).detach().norm()))
        ours, wanted = share(x, i, p, n), share(taught, i, p, n).detach()
        total = total - wanted * ours.log() - (1 - wanted) * (1 - ours).log()
    return total / max(count, 1)


def graph_positives(**kwargs):
    """For 8 features; about half of the candidates of its untrained network are positives."""
    torch.manual_seed(0)
    options = {"feature_size": 8, "candidates": 6, "hidden": 16, "threshold": 0.49}
    return LOSSES.get("GraphPositives")(**options | kwargs)


def gpp_weights(x: Tensor, M: Tensor, y: Tensor, k: int, is_positive) -> Tensor:
    """ECN+GPP: 1/|P| at predicted positives among the k most similar rows, 1 at the own row."""
    w = torch.zeros(len(x), len(M), dtype=torch.float64)
    for i in range(len(x)):
        order = sorted(range(len(M)), key=lambda j: -float(unit(x[i]) @ M[j]))[:k]
        P = [j for j in order if is_positive(i, j, order) and j != int(y[i])]
        for j in P:
            w[i, j] = 1 / len(P)
        w[i, y[i]] = 1.0
    return w


def graph_correlation(**kwargs):
    """For 8 features; W is not zero, and theta and phi are apart, as after some steps."""
    torch.manual_seed(1)
    options = {"feature_size": 8, "hidden": 6, "neighbors": 4, "candidates": 7}
    loss = LOSSES.get("GraphCorrelation")(**options | kwargs)
    torch.nn.init.normal_(loss.message.weight, std=0.3)
    torch.nn.init.normal_(loss.phi.weight, std=0.3)
    return loss


def gcl_candidates(x: Tensor, M: Tensor, y: Tensor, own: Tensor, m: int) -> list[list[Tensor]]:
    """GCL: what the edges of each image lead to, the others of the batch and its nearest rows."""
    found = []
    for i in range(len(x)):
        batch = [("image", j) for j in range(len(x)) if j != i and y[j] >= 0]
        rows = sorted(range(len(M)), key=lambda r: -float(unit(x[i]).detach() @ M[r]))
        found.append(batch + [("row", r) for r in rows if r != int(own[i])][:m])
    return found


def gcl(loss, x: Tensor, M: Tensor, y: Tensor, row_y: Tensor, own: Tensor, logits_of) -> Tensor:
    """GCL, image by image: cross-entropy of y_i over the memory, and the edges' cross-entropy.

    Args:
        own: row of each image alone, -1 = none. logits_of: of one unit feature, over the classes.
    """
    layers = loss.theta, loss.phi, loss.message
    theta, phi, W = (layer.weight.detach().double() for layer in layers)
    s, b = loss.sharpness.item(), loss.bias.item()
    contrast, edges = [], []
    for i, ends in enumerate(gcl_candidates(x, M, y, own, loss.candidates)):
        if y[i] < 0:
            continue
        logits, nodes = [], []
        for kind, j in ends:
            node = unit(x[j]) if kind == "image" else M[j]
            label = int(y[j]) if kind == "image" else int(row_y[j])
            e = s * (unit(theta @ unit(x[i])) @ unit(phi @ node)) + b
            logits.append(e)
            nodes.append(node)
            if label >= 0:
                p = torch.sigmoid(e)
                edges.append(-p.log() if label == int(y[i]) else -(1 - p).log())
        best = sorted(range(len(logits)), key=lambda n: -float(logits[n].detach()))[
            : loss.neighbors
        ]
        a = torch.stack([logits[n] for n in best]).softmax(0)
        mixed = unit(x[i]) + W @ sum(a_n * nodes[n] for a_n, n in zip(a, best, strict=True))
        contrast.append(-logits_of(unit(mixed)).log_softmax(0)[int(y[i])])
    return sum(contrast) / len(contrast) + loss.edge_scale * sum(edges) / len(edges)


def scl(x: Tensor, V: Tensor, y: Tensor, row_y: Tensor, own: Tensor, reach: Tensor, t, k) -> Tensor:
    """SCL, image by image."""
    losses = []
    for i in range(len(x)):
        if y[i] < 0:
            continue
        cos = [unit(x[i]) @ v for v in V]
        cluster = [j for j in range(len(V)) if row_y[j] == y[i]]
        mean = sum(float(cos[j].detach()) for j in cluster) / len(cluster)
        spread = math.sqrt(
            sum((float(cos[j].detach()) - mean) ** 2 for j in cluster) / len(cluster)
        )
        reliable = [j for j in cluster if float(cos[j].detach()) >= mean - spread - 1e-6]
        p = min(reliable, key=lambda j: float(cos[j].detach()))
        others = [j for j in range(len(V)) if row_y[j] >= 0 and row_y[j] != y[i]]
        others = sorted(others, key=lambda j: -float(cos[j].detach()))[:k]
        N = [j for j in others if cos[j] < reach[own[i]] or cos[j] < reach[j]]
        total = (cos[p] / t).exp() + sum((cos[n] / t).exp() for n in N)
        losses.append(-((cos[p] / t).exp() / total).log())
    return sum(losses) / len(losses)


def in_views(batch, views):
    """The batch with views, and maps of 2 x 2 locations for features of size 8."""
    f = batch.features
    fine = torch.stack([f, f.roll(1, 1), f.roll(2, 1), f.flip(1)], 2).view(*f.shape, 2, 2)
    return replace(batch, views=views, fine_map=fine, coarse_map=fine[:, :, :1, :])


def amdim(**kwargs):
    """For 8 features and maps of 8 channels."""
    torch.manual_seed(0)
    options = {"feature_size": 8, "fine_channels": 8, "coarse_channels": 8}
    return LOSSES.get("AMDIM")(**options | {"fine_rows": 2, "fine_columns": 2} | kwargs)


def amdim_term(own, other, y, views, c, penalty):
    """Bachman et al.: mean over pairs of views i, j of an image, vectors k of i, locations l of j.

    Args:
        own: [R, K, D]. other: [R, L, D]. Lengths sqrt(D).
    """
    R, K, D = own.shape
    L = other.shape[1]
    raw, losses = [], []
    for i in range(R):
        if y[i] < 0:
            continue
        J = [j for j in range(R) if y[j] >= 0 and views[j] != views[i]]
        for k in range(K):
            s = {(j, m): own[i, k] @ other[j, m] / math.sqrt(D) for j in J for m in range(L)}
            raw += s.values()
            s = {at: c * torch.tanh(value / c) for at, value in s.items()}
            rest = sum(s[at].exp() for at in s if y[at[0]] != y[i])
            for at in s:
                if y[at[0]] == y[i]:
                    losses.append(-(s[at].exp() / (s[at].exp() + rest)).log())
    return sum(losses) / len(losses) + penalty * sum(s**2 for s in raw) / len(raw)


def prototypes(x, y, index, t, shots):
    """Snell et al. on unit features; with 0 shots an image is left out of its own prototype."""
    f = [unit(v) for v in x]
    classes = sorted({int(c) for c in y if c >= 0})
    members = {c: [i for i in range(len(y)) if y[i] == c] for c in classes}
    ranks = {i: sum(index[j] < index[i] for j in members[c]) for c in classes for i in members[c]}
    support = {c: [i for i in members[c] if not shots or ranks[i] < shots] for c in classes}
    losses = []
    for c in classes:
        for i in members[c]:
            own = [j for j in support[c] if j != i] if not shots else support[c]
            if not own or (shots and i in support[c]):
                continue
            z = {}
            for o in classes:
                use = own if o == c else support[o]
                p = sum(f[j] for j in use) / len(use)
                z[o] = -((f[i] - p) ** 2).sum() / t
            losses.append(-z[c] + torch.stack(list(z.values())).logsumexp(0))
    return sum(losses) / len(losses)


#: Losses whose networks are built for larger features by default.
SIZED = ("AMDIM", "GraphCorrelation", "GraphPositives")
ALL_LOSSES = {name: LOSSES.get(name)() for name in LOSSES.names() if name not in SIZED} | {
    "camera_entropy": LOSSES.get("MemoryContrast")(camera_entropy=True),
    "spcl": LOSSES.get("MemoryContrast")(probability_floor=1e-6),
    "sp-h": LOSSES.get("AdaSP")(type="sp-h"),
    "sp-lh": LOSSES.get("AdaSP")(type="sp-lh"),
    "two_head": LOSSES.get("AverageK")(use="two_head", rescue=True),
    "soft_positives": LOSSES.get("AverageK")(use="soft_positives"),
    "triplet_soft": LOSSES.get("BatchHardTriplet")(margin=0.0, distance="cosine"),
    "triplet_weighted": LOSSES.get("BatchHardTriplet")(margin=0.0, mining="weighted"),
    "easy_semi": LOSSES.get("EasyPositive")(semi_hard=True),
    "GraphPositives": graph_positives(),
    "GraphCorrelation": graph_correlation(),
    "AMDIM": amdim(),
    "few_shot": LOSSES.get("Prototypes")(shots=1),
}
MEMORY_OF = {
    "CameraProxyContrast": "camera_proxy",
    "ECN": "instance",
    "GraphPositives": "instance",
    "OnlineAssociation": "camera_proxy",
    "SelectiveContrast": "selective",
    "spcl": "hybrid",
}
