"""CLIP's tower equals recorded values of the public code; its weights load from any layout."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fastreid_cc.errors import BadConfig, MissingWeights
from fastreid_cc.networks.clip_tower import ClipTower, clip_weights, load_clip, resize_positions

DATA = Path(__file__).parent / "parity" / "clip"
TOWERS = sorted(path.name for path in DATA.glob("tower_*.npz"))


def arrays(name: str) -> dict[str, Tensor]:
    """Every numeric array of a file, float16 as float32."""
    with np.load(DATA / name) as file:
        found = {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind in "fiu"}
    return {k: v.float() if v.dtype == torch.float16 else v for k, v in found.items()}


def tower_of(data: dict[str, Tensor], **arguments: object) -> ClipTower:
    """The tower a file says, with its weights if it has any."""
    height, width, patch, stride, size, depth, heads, embed, rows, columns = data["config"].tolist()
    kinds = {"width": size, "depth": depth, "heads": heads, "embed_dim": embed}
    tower = ClipTower((height, width), patch=patch, stride=stride, **{**kinds, **arguments})  # type: ignore[arg-type]
    assert tower.grid == (rows, columns)
    weights = {k.removeprefix("w/"): v for k, v in data.items() if k.startswith("w/")}
    if weights:
        load_clip(tower, weights)
    return tower


def both_necks(data: dict[str, Tensor]) -> torch.nn.BatchNorm1d:
    """One batch norm over both tokens, which equals the recorded two."""

    def joined(name: str) -> Tensor:
        return torch.cat([data[f"w/bottleneck.{name}"], data[f"w/bottleneck_proj.{name}"]])

    neck = torch.nn.BatchNorm1d(len(joined("weight")))
    names = ("weight", "bias", "running_mean", "running_var")
    neck.load_state_dict({name: joined(name) for name in names}, strict=False)
    return neck


def all_tokens(tower: ClipTower, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Every token after the last LN, and the class token after each block."""
    z, found = tower.embed(images), []
    for block in tower.transformer.resblocks:
        z = block(z)
        found.append(z[:, 0])
    return tower.ln_post(z), found


@pytest.mark.parametrize("name", TOWERS)
def test_tokens_equal_the_recorded_ones(name: str) -> None:
    data = arrays(name)
    tower = tower_of(data)
    with torch.no_grad():
        tokens, of_blocks = all_tokens(tower, data["images"])
        got = tower(data["images"])[..., 0, 0]
        embedded = tower.embed(data["images"])
    size = tokens.shape[-1]
    torch.testing.assert_close(embedded, data["tokens_in"], rtol=0, atol=2e-6)
    torch.testing.assert_close(torch.stack(of_blocks), data["cls_after_block"], rtol=0, atol=3e-5)
    torch.testing.assert_close(tokens, data["tokens"], rtol=0, atol=2e-5)
    torch.testing.assert_close(tokens @ tower.proj, data["proj_tokens"], rtol=0, atol=2e-5)
    torch.testing.assert_close(got[:, :size], data["tokens"][:, 0], rtol=0, atol=2e-5)
    torch.testing.assert_close(got[:, size:], data["proj_tokens"][:, 0], rtol=0, atol=2e-5)
    if "wrong_gelu_cls" in data:
        assert (got[:, :size] - data["wrong_gelu_cls"]).abs().max() > 0.01
        torch.testing.assert_close(got[:, :size], data["timm_cls"], rtol=0, atol=2e-5)
        torch.testing.assert_close(got[:, size:], data["timm_proj"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", TOWERS)
def test_head_and_gradients_equal_the_recorded_ones(name: str, checkpointing: bool) -> None:
    data = arrays(name)
    tower, neck = tower_of(data, checkpointing=checkpointing), both_necks(data)
    features = tower(data["images"])[..., 0, 0]
    before = neck.eval()(features)
    torch.testing.assert_close(before, data["eval_bn"], rtol=0, atol=2e-5)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(before), data["eval_out"], rtol=0, atol=3e-6)
    out = unit(neck.train()(features))
    torch.testing.assert_close(out, data["train_out"], rtol=0, atol=3e-6)
    for statistic in ("running_mean", "running_var"):
        wanted = [data[f"train_after/bottleneck{part}.{statistic}"] for part in ("", "_proj")]
        torch.testing.assert_close(getattr(neck, statistic), torch.cat(wanted), rtol=0, atol=1e-6)
    (out * data["r"]).sum().backward()
    size = len(data["w/bottleneck.weight"])
    own = {f"image_encoder.{k}": p.grad for k, p in tower.named_parameters()}
    assert neck.weight.grad is not None
    own["bottleneck.weight"], own["bottleneck_proj.weight"] = neck.weight.grad.split(
        [size, len(neck.weight) - size]
    )
    wanted_gradients = {k.removeprefix("grad/"): v for k, v in data.items() if "grad/" in k}
    assert len(wanted_gradients) == 8
    for key, wanted in wanted_gradients.items():
        got = own[key]
        assert got is not None
        torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("tokens", ["class", "projected"])
def test_one_token_alone(tokens: str) -> None:
    data = arrays("tower_w24_wide.npz")
    tower = tower_of(data, tokens=tokens)
    wanted = data["tokens" if tokens == "class" else "proj_tokens"][:, 0]
    got = tower(data["images"])
    assert got.shape == (*wanted.shape, 1, 1)
    torch.testing.assert_close(got[..., 0, 0], wanted, rtol=0, atol=2e-5)


def test_a_whole_published_state_dict_loads_into_another_grid() -> None:
    data = arrays("load_resize.npz")
    published = {k.removeprefix("sd/"): v for k, v in data.items() if k.startswith("sd/")}
    tower = tower_of(data)
    said = load_clip(tower, published)
    assert "positions resized from 9 patches to 4x2" in said
    torch.testing.assert_close(
        tower.positional_embedding.data, data["positional_embedding"], rtol=0, atol=2e-6
    )
    wrong = data["wrong_bicubic_positional_embedding"]
    assert (tower.positional_embedding - wrong).abs().max() > 0.1
    with torch.no_grad():
        tokens, _ = all_tokens(tower, data["images"])
    torch.testing.assert_close(tokens, data["tokens"], rtol=0, atol=2e-5)
    torch.testing.assert_close(tokens @ tower.proj, data["proj_tokens"], rtol=0, atol=2e-5)


def test_positions_are_resized_as_recorded() -> None:
    data = arrays("posembed.npz")
    cases = sorted({key.split("/")[0] for key in data})
    assert len(cases) == 5
    for case in cases:
        rows, columns = map(int, re.fullmatch(r".*_to_(\d+)x(\d+)", case).groups())  # type: ignore[union-attr]
        got = resize_positions(data[f"{case}/source"], (rows, columns))
        torch.testing.assert_close(got, data[f"{case}/resized"], rtol=0, atol=1e-5)


def test_positions_of_an_unknown_grid_are_refused() -> None:
    with pytest.raises(MissingWeights, match="128 patches: no square grid"):
        resize_positions(torch.zeros(129, 4), (21, 10))


def timm_layout(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's tower under timm's names, by the recorded table of names."""
    with np.load(DATA / "state_dict_names.npz") as file:
        table = {k: file[k].tolist() for k in ("openai_name", "timm_name", "to_timm")}
    found = {}
    for old, new, how in zip(*table.values(), strict=True):
        if (weight := weights.get(old.removeprefix("visual."))) is None:
            continue  # of a deeper tower
        weight = weight.T if how == "transpose" else weight
        found[new] = weight[None, None] if old.endswith("class_embedding") else weight
        if "pos" in new:
            found[new] = weight[None]
    return found


@pytest.mark.parametrize("prefix", ["", "visual.", "module.image_encoder.", "backbone.", "timm"])
def test_every_layout_gives_the_same_tower(prefix: str) -> None:
    data = arrays("tower_w16_d12.npz")
    own = tower_of(data).state_dict()
    found = timm_layout(own) if prefix == "timm" else {prefix + k: v for k, v in own.items()}
    found |= {"head.bias": torch.zeros(8)} if prefix == "timm" else {"logit_scale": torch.ones(())}
    other = tower_of({"config": data["config"]})
    load_clip(other, found)
    assert all(torch.equal(own[name], weight) for name, weight in other.state_dict().items())


def test_the_names_are_the_published_ones() -> None:
    with np.load(DATA / "state_dict_names.npz") as file:
        names = [name.removeprefix("visual.") for name in file["openai_name"].tolist()]
    with torch.device("meta"):
        tower = ClipTower((256, 128))
    assert sorted(tower.state_dict()) == sorted(names)
    assert tower.feature_size == 1280 and tower.grid == (16, 8)


def test_what_does_not_fit_is_refused() -> None:
    data = arrays("tower_w24_wide.npz")
    tower, weights = tower_of(data), tower_of(data).state_dict()
    with pytest.raises(MissingWeights, match="found layer1.weight"):
        clip_weights({"layer1.weight": torch.zeros(1)})
    del weights["ln_post.bias"]
    with pytest.raises(MissingWeights, match=r"1 of .* ln_post.bias is missing \(wanted \(24,\)\)"):
        load_clip(tower, weights)
    with pytest.raises(MissingWeights, match="head.bias is not 0"):
        load_clip(tower, {**timm_layout(tower.state_dict()), "head.bias": torch.ones(40)})
    with pytest.raises(BadConfig, match="give 12 patches, the network was built for 3x6"):
        tower(torch.zeros(1, 3, 24, 32))
    with pytest.raises(ValueError, match="must be a multiple of"):
        ClipTower((32, 16), width=10, heads=3)
    with pytest.raises(ValueError, match="holds no patch"):
        ClipTower((12, 32))
