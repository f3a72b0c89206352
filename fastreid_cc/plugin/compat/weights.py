"""Pretrained weights: cached files load, missing ones are named, gdown is not needed."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import types
import urllib.request
from typing import Any

import torch

from .imports import fastreid_module
from .patching import assign

FAMILIES = ("resnet", "resnext", "osnet", "regnet.regnet", "regnet.effnet")


class MissingWeights(RuntimeError):
    """Pretrained weights are neither on disk nor to be had; the message names the file to place."""


def load_cached_weights() -> None:
    """`init_pretrained_weights` of ResNet, ResNeXt, OSNet, RegNet and EfficientNet.

    Breaks: `import gdown`, which fastreid does not depend on, runs before the cache is looked at;
    without network the download fails in a traceback, or in silence and then as a missing file,
    and on one rank only. All versions. Does: a cached file loads without gdown; a missing one is
    downloaded (plain links without gdown too), to a file beside and renamed; else every process
    raises one error that names file, folder and the keys to change. Test: test_compat_weights.py.
    May go: when fastreid asks torch.hub.
    """
    for family in FAMILIES:
        module = fastreid_module(f"modeling.backbones.{family}")
        assign(module, "init_pretrained_weights", _guarded(module))


def _guarded(module: Any) -> Any:
    stock = module.init_pretrained_weights

    @functools.wraps(stock)
    def init_pretrained_weights(key: str) -> Any:
        if key not in module.model_urls:
            known = ", ".join(sorted(module.model_urls))
            raise MissingWeights(
                f"fastreid knows no pretrained weights for {key!r} of {module.__name__} (known: "
                f"{known}). Set MODEL.BACKBONE.PRETRAIN_PATH to a file, or MODEL.BACKBONE.PRETRAIN False."
            )
        path = weights_path(module.model_urls[key])
        _fetch(module.model_urls[key], path)
        with_stub = importlib.util.find_spec("gdown") is None and "gdown" not in sys.modules
        if with_stub:
            sys.modules["gdown"] = types.ModuleType("gdown")
        try:
            return stock(key)
        except (RuntimeError, EOFError, KeyError) as error:
            raise MissingWeights(f"{path} is damaged; delete it. ({error})") from error
        finally:
            if with_stub:
                del sys.modules["gdown"]

    return init_pretrained_weights


def weights_path(url: str) -> str:
    """Where fastreid looks for the file of a link: $TORCH_HOME/checkpoints, by default ~/.cache/torch."""
    cache = os.getenv("TORCH_HOME", os.path.join(os.getenv("XDG_CACHE_HOME", "~/.cache"), "torch"))
    return os.path.join(os.path.expanduser(cache), "checkpoints", url.split("/")[-1])


def _fetch(url: str, path: str) -> None:
    comm = fastreid_module("utils.comm")
    reason: Any = "another process could not download it"
    if not os.path.exists(path) and comm.is_main_process():
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _download(url, path + ".tmp")
            os.replace(path + ".tmp", path)
        except Exception as error:  # offline, refused, disk full: all become one message below
            reason = f"{type(error).__name__}: {error}"
    comm.synchronize()
    if not os.path.exists(path):
        raise MissingWeights(
            f"Pretrained weights are missing and cannot be downloaded ({reason}).\n"
            f"Place the file {os.path.basename(path)} in {os.path.dirname(path)}\n"
            f"(from {url}), or set MODEL.BACKBONE.PRETRAIN_PATH to a file you have, or "
            "MODEL.BACKBONE.PRETRAIN False to start from random weights."
        )


def _download(url: str, path: str) -> None:
    if "drive.google" in url:
        if importlib.util.find_spec("gdown") is None:
            raise ConnectionError("the link needs the package gdown: pip install gdown")
        import gdown  # type: ignore[import-not-found]

        gdown.download(url, path, quiet=False)
        return
    with urllib.request.urlopen(url, timeout=20) as answer, open(path, "wb") as file:
        while block := answer.read(1 << 20):
            file.write(block)


def explain_missing_hub_weights() -> None:
    """ResNeSt and MobileNetV3 download through torch.hub.

    Breaks: without network, a URLError that names neither file nor folder. Does: the same error as
    `load_cached_weights`. A cached file loads as in stock. Test: test_compat_weights.py. May go:
    never.
    """
    hub = torch.hub
    resnest = fastreid_module("modeling.backbones.resnest")
    mobilenet = fastreid_module("modeling.backbones.mobilenetv3")
    load = _explained(hub.load_state_dict_from_url)
    assign(mobilenet, "load_state_dict_from_url", load)
    assign(resnest, "torch", _TorchWithHub(load))


class _TorchWithHub:
    def __init__(self, load: Any) -> None:
        self.hub = types.SimpleNamespace(load_state_dict_from_url=load)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _explained(stock: Any) -> Any:
    @functools.wraps(stock)
    def load_state_dict_from_url(url: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return stock(url, *args, **kwargs)
        except OSError as error:  # URLError and HTTPError are OSErrors
            folder = os.path.join(torch.hub.get_dir(), "checkpoints")
            raise MissingWeights(
                f"Pretrained weights are missing and cannot be downloaded ({error}).\n"
                f"Place the file {url.split('/')[-1]} in {folder}\n(from {url}), or set "
                "MODEL.BACKBONE.PRETRAIN_PATH to a file you have, or MODEL.BACKBONE.PRETRAIN False."
            ) from error

    return load_state_dict_from_url
