"""Pretrained weights: cached files load, missing ones are named, gdown is not needed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import pickle
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from fastreid.modeling.backbones import build, mobilenetv3, resnest
from fastreid.utils import comm

from fastreid_cc.errors import MissingWeights, UnreadableFile
from fastreid_cc.files import write_atomically

from ...checkpoint_files import load_file
from ...weight_layouts import find_weights
from ..patching import View, around, assign, with_values, wrap

logger = logging.getLogger("fastreid.cc.weights")
CONVERT = (
    "`python -m fastreid_cc convert FILE --out NEW.pth --config-file ...` reads files of other"
    " projects\nand shows what fits."
)
OTHERWISE = (
    "Or set MODEL.BACKBONE.PRETRAIN_PATH to weights you have (`convert` makes them fit, see\n"
    "docs/weights.md), or MODEL.BACKBONE.PRETRAIN False to start from random weights."
)
FAMILIES = ("resnet", "resnext", "osnet", "regnet.regnet", "regnet.effnet")


def load_cached_weights() -> None:
    """Loads cached weights of ResNet, ResNeXt, OSNet, RegNet and EfficientNet without gdown.

    Breaks: `import gdown`, which fastreid does not depend on, runs before the cache is looked at;
    without network the download fails in a traceback, or in silence and then as a missing file,
    and on one rank only. All versions. Does: a cached file loads without gdown; a missing one is
    downloaded (plain links without gdown too), to a file beside and renamed; else every process
    raises one error that names file, folder and the keys to change. Test: test_compat_weights.py.
    May go: when fastreid asks torch.hub.
    """
    for family in FAMILIES:
        module = importlib.import_module(f"fastreid.modeling.backbones.{family}")
        wrap(module, "init_pretrained_weights", functools.partial(_load_cached, module))


def _load_cached(module: Any, stock: Any, *args: Any, **kwargs: Any) -> Any:
    key = kwargs.get("key", args[-1])  # OSNet's takes the model first
    url = _url(module, key)
    path = weights_path(url, key)
    _load(url, path)  # older torch would run what code the file holds
    with _gdown_stub():
        try:
            return stock(*args, **kwargs)
        except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise MissingWeights(f"{path} is damaged; delete it. ({error})") from error


def _url(module: Any, key: str) -> str:
    if key not in module.model_urls:
        raise MissingWeights(
            f"fastreid knows no pretrained weights {key!r} for {module.__name__} (known: "
            f"{', '.join(sorted(module.model_urls))}). {OTHERWISE}"
        )
    return str(module.model_urls[key])


@contextlib.contextmanager
def _gdown_stub() -> Iterator[None]:
    """Lets `import gdown` pass. By now the file is there and nothing will be downloaded."""
    with contextlib.ExitStack() as undo:
        if importlib.util.find_spec("gdown") is None:
            sys.modules["gdown"] = types.ModuleType("gdown")
            undo.callback(sys.modules.pop, "gdown")
        yield


def weights_path(url: str, key: str) -> str:
    """Where fastreid looks for weights: $TORCH_HOME (by default ~/.cache/torch) / checkpoints."""
    cache = os.getenv("TORCH_HOME", os.path.join(os.getenv("XDG_CACHE_HOME", "~/.cache"), "torch"))
    name = f"{key}_imagenet.pth" if key.startswith("osnet") else url.split("/")[-1]
    return os.path.join(os.path.expanduser(cache), "checkpoints", name)


def wanted_weights(cfg: Any) -> tuple[str, str] | None:
    """Address and place of the file that the backbone will load; None if the family has none.

    Raises:
        MissingWeights: if the family has some, but none for this depth.
    """
    node = cfg.MODEL.BACKBONE
    if not node.PRETRAIN or node.PRETRAIN_PATH:
        return None
    family, depth = node.NAME.removeprefix("build_").removesuffix("_backbone"), node.DEPTH
    key = f"ibn_{depth}" if node.WITH_IBN and family in ("resnet", "resnext", "osnet") else depth
    key = f"se_{key}" if node.WITH_SE and family == "resnet" else key
    key = {"osnet": f"osnet_{key}", "resnest": f"resnest{depth[:-1]}"}.get(family, key)
    for name in (*FAMILIES, "resnest"):
        if name.split(".")[-1] == family:
            url = _url(importlib.import_module(f"fastreid.modeling.backbones.{name}"), key)
            return url, hub_path(url) if name == "resnest" else weights_path(url, key)
    return None


def fetch(url: str, path: str, hash_prefix: str | None = None) -> None:
    """Has the first process download a weights file that is missing; the others wait.

    Raises:
        MissingWeights: if it is missing still.
    """
    reason = "another process could not"
    if not os.path.exists(path) and comm.is_main_process():
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _download(url, path, hash_prefix)
        except Exception as error:  # offline, refused, disk full: all become one message below
            reason = f"{type(error).__name__}: {error}"
    comm.synchronize()
    if not os.path.exists(path):
        raise MissingWeights(
            "MODEL.BACKBONE.PRETRAIN True wants published weights that are not here:\n"
            f"no file {path},\n"
            f"and it cannot be downloaded from {url}\n({reason}).\n"
            f"Put that file there. {OTHERWISE}"
        )


def _load(url: str, path: str, hash_prefix: str | None = None) -> Any:
    """Content of a weights file, downloaded if it is missing.

    Raises:
        MissingWeights: if it is damaged, or missing still.
    """
    fetch(url, path, hash_prefix)
    try:
        return load_file(path)
    except UnreadableFile as error:
        raise MissingWeights(f"{error} Delete it, then it is fetched again.") from error


def _download(url: str, path: str, hash_prefix: str | None) -> None:
    if "drive.google" not in url:
        torch.hub.download_url_to_file(url, path, hash_prefix)
        return
    if importlib.util.find_spec("gdown") is None:
        raise ConnectionError("the link needs the package gdown: pip install gdown")
    import gdown

    with write_atomically(path) as part:
        gdown.download(url, str(part), quiet=False)


def explain_missing_hub_weights() -> None:
    """Loads weights of ResNeSt and MobileNetV3 as tensors only, and names what is missing.

    Breaks: they download through torch.hub; without network, a URLError that names neither file nor
    folder; and torch.hub runs what code a file holds, on every version. Does: the same error as
    `load_cached_weights`, and tensors only. A cached file loads as in stock. Test:
    test_compat_weights.py, test_security.py. May go: never.
    """
    assign(mobilenetv3, "load_state_dict_from_url", _load_from_hub)
    hub = View(torch.hub, load_state_dict_from_url=_load_from_hub)
    assign(resnest, "torch", View(torch, hub=hub))


def hub_path(url: str) -> str:
    """Where torch.hub looks for weights: $TORCH_HOME/hub/checkpoints."""
    return os.path.join(torch.hub.get_dir(), "checkpoints", url.split("/")[-1])


def _load_from_hub(url: str, *args: Any, **kwargs: Any) -> Any:
    """`torch.hub.load_state_dict_from_url`: same folder and same check of the name's hash."""
    prefix = re.search(r"-([a-f0-9]{8,})\.", url.split("/")[-1])
    return _load(url, hub_path(url), prefix[1] if prefix else None)


@around(build, "build_backbone")
def read_own_weights_in_any_wrapping(stock: Any, cfg: Any) -> Any:
    """Reads MODEL.BACKBONE.PRETRAIN_PATH in any wrapping, or says why it cannot.

    Breaks: most backbones read a bare state dict and ignore what does not fit, so a fastreid
    checkpoint (weights under "model", names that begin with "backbone.") trains from random weights
    with one log line; others want a wrapping of their own (KeyError). A missing file and one of
    other shapes are tracebacks. All versions. Does: where stock loaded nothing, unwraps the file
    and strips what stands before its names (`weight_layouts`), with a warning if weights are
    missing; if nothing fits, shapes differ or there is no file, an error that names the key. Test:
    test_compat_weights.py. May go: when fastreid refuses files that do not fit.
    """
    node = cfg.MODEL.BACKBONE
    builder = build.BACKBONE_REGISTRY.get(node.NAME)
    if not node.PRETRAIN or getattr(builder, "reads_own_weights", False):
        return stock(cfg)
    if node.PRETRAIN_PATH:
        return _build_from_file(stock, cfg)
    try:
        return stock(cfg)
    except FileNotFoundError as error:
        raise MissingWeights(
            f"fastreid has no pretrained weights to download for MODEL.BACKBONE.NAME="
            f"{node.NAME!r}. {OTHERWISE}"
        ) from error


def _build_from_file(stock: Any, cfg: Any) -> Any:
    node = cfg.MODEL.BACKBONE
    where = f"MODEL.BACKBONE.PRETRAIN_PATH={node.PRETRAIN_PATH!r}"
    if not os.path.isfile(node.PRETRAIN_PATH):
        raise MissingWeights(f"{where}: no such file.")
    try:
        weights = find_weights(load_file(node.PRETRAIN_PATH)).weights
    except UnreadableFile as error:  # .safetensors, or arguments beside the weights
        raise UnreadableFile(f"{error}\n{CONVERT}") from error
    wanted_by = f"MODEL.BACKBONE.NAME={node.NAME!r}, DEPTH={node.DEPTH!r}"
    try:
        backbone = stock(cfg)
    except RuntimeError as error:
        shape = re.search(r"size mismatch for (.*)", str(error))
        if shape is None:
            raise
        raise MissingWeights(
            f"{where} does not fit {wanted_by}: {shape[1].strip()}\n{CONVERT}"
        ) from error
    except (KeyError, TypeError, AttributeError, pickle.UnpicklingError):
        backbone = stock(with_values(cfg, "MODEL.BACKBONE.PRETRAIN", False))
    own = backbone.state_dict()
    fitting = {k: w for k, w in weights.items() if k in own and own[k].shape == w.shape}
    matrices = [k for k, w in fitting.items() if w.ndim > 1]
    if not matrices:
        raise MissingWeights(
            f"{where}: none of its {len(weights)} weights fits {wanted_by} "
            f"(it holds {', '.join(list(weights)[:3])}, ...; wanted {', '.join(list(own)[:3])}).\n"
            f"{CONVERT}"
        )
    if not any(torch.equal(own[k], fitting[k]) for k in matrices):  # stock read nothing
        backbone.load_state_dict(fitting, strict=False)
        absent = [k for k in own if k not in fitting and not k.endswith("num_batches_tracked")]
        if absent:
            logger.warning(
                f"{where} lacks {len(absent)} of {len(own)} weights of {wanted_by}, which stay"
                f" random: {', '.join(absent[:3])}, ..."
            )
    return backbone
