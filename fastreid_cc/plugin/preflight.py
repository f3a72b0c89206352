"""What would stop a run, told before anything is built or printed.

`default_setup`, which every script of fastreid calls first, is wrapped: what follows a mistake is
one message that names the key, not the config, the environment and a traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastreid.data import build as data_build
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import Dataset
from fastreid.engine import defaults
from fastreid.utils import comm

from ..config import get_key, validate
from ..config.shipped import PREFIX, TESTED, find_config, how_tested
from ..data.folder import FolderItems
from ..data.published import PUBLISHED
from ..errors import BadConfig, MissingData, WrongUse, printable
from ..labeling.answers import names_below, read_answers
from .compat.patching import wrap
from .compat.repairs.pretrained_weights import fetch, wanted_weights
from .loading.collect_sources import list_folders, number_listed
from .loading.datasets import configure_from, current
from .loading.target_images import refuse_too_few
from .modeling.registered_losses import refuse_memory_losses
from .short_log import short_console
from .stock_names import stock_names

WEIGHTS = (
    " docs/weights.md says where there are some;\n"
    "`python -m fastreid_cc convert FILE --out NEW.pth` takes the backbone out of other projects'."
)
logger = logging.getLogger("fastreid.cc.engine")
_CHECKPOINT = re.compile(r"model_(\d+|best|final)\.pth")


class _IsThere(Exception):
    """A data set has found its files; it need not read them."""


def preflight(
    cfg: Any, *, resume: bool = False, eval_only: bool = False, world_size: int = 1
) -> None:
    """Raises one clear error for the first thing that cannot work.

    Args:
        cfg: the whole config.
        resume: the run goes on from its OUTPUT_DIR.
        eval_only: nothing is trained.
        world_size: processes of the run.

    Raises:
        BadConfig: naming the key.
        MissingData: naming a data set, and where it was looked for.
        MissingWeights: naming a file that cannot be downloaded, and where it belongs.

    Cost: seconds for a folder of a million images, whose names are read; no image is.
    """
    _check_names(cfg)
    if not eval_only:
        validate(cfg, world_size=world_size)
        if not cfg.CC.ENABLED:
            refuse_memory_losses(cfg)
    _check_weights(cfg, resume=resume, eval_only=eval_only)
    if not (resume or eval_only):
        _check_output(cfg)
    _check_data(cfg, eval_only=eval_only)
    wanted = None if eval_only else wanted_weights(cfg)
    if wanted is not None:  # after all that a user can mend without a network
        fetch(*wanted)


def _check_names(cfg: Any) -> None:
    """What fastreid looks up by name is there."""
    for key, known in stock_names().items():
        value = get_key(cfg, key)
        for name in [value] if isinstance(value, str) else value:
            _check_name(key, name, known)


def _check_name(key: str, name: Any, known: Iterable[str]) -> None:
    if name not in known:
        lower = {other.lower(): other for other in known}
        near = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
        hint = f" Did you mean {lower[near[0]]}?" if near else ""
        listed = ", ".join(lower.values())
        raise BadConfig(f"{key}={name!r}: no such name.{hint} Known: {listed}.")


def _check_weights(cfg: Any, *, resume: bool, eval_only: bool) -> None:
    """Files of weights that keys name are there; an evaluation has some."""
    if eval_only and not cfg.MODEL.WEIGHTS:
        best = Path(cfg.OUTPUT_DIR, "model_best.pth")
        example = best if best.is_file() else Path(cfg.OUTPUT_DIR, "model_final.pth")
        raise WrongUse(
            "--eval-only without MODEL.WEIGHTS would measure random weights.\n"
            f"Name a checkpoint, e.g. MODEL.WEIGHTS {printable(example)}"
        )
    if eval_only and not cfg.DATASETS.TESTS:
        raise WrongUse("--eval-only with an empty DATASETS.TESTS has nothing to measure; name one.")
    named = [] if resume else ["MODEL.WEIGHTS"]
    if cfg.MODEL.BACKBONE.PRETRAIN and not eval_only:
        named.append("MODEL.BACKBONE.PRETRAIN_PATH")
    for key in named:
        path = get_key(cfg, key)
        if path and "://" not in path and not os.path.isfile(path):
            kind = "is a folder" if os.path.isdir(path) else "no such file"
            raise BadConfig(
                f"{key}={printable(path)}: {kind}, looked for at"
                f" {printable(os.path.abspath(path))}.\nName a checkpoint, or leave the key out."
                f"{WEIGHTS * key.endswith('PATH')}"
            )


def _check_output(cfg: Any) -> None:
    """OUTPUT_DIR holds no other run, whose curves and checkpoints would mix with this one's."""
    folder = cfg.OUTPUT_DIR
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = sorted(n for n in names if n == "last_checkpoint" or _CHECKPOINT.fullmatch(n))
    if not found:
        return
    if not cfg.CC.OVERWRITE:
        raise BadConfig(
            f"OUTPUT_DIR={printable(folder)} holds another run ({', '.join(found[:3])}).\n"
            "Name another OUTPUT_DIR, go on with that run by --resume, or start anew in its place\n"
            "by CC.OVERWRITE True, which removes its metrics and checkpoints."
        )
    if comm.is_main_process():
        for name in (*found, "metrics.json"):
            Path(folder, name).unlink(missing_ok=True)


def _check_data(cfg: Any, *, eval_only: bool) -> None:
    """Data sets lie where they are looked for. Generated ones are not drawn, no image is read."""
    keys = ("DATASETS.TESTS",) if eval_only else ("DATASETS.NAMES", "CC.SOURCES.NAMES")
    keys = keys if eval_only or not cfg.DATASETS.TESTS else (*keys, "DATASETS.TESTS")
    root, seen, target = data_build._root, set(), []
    configure_from(cfg)
    for key in keys:
        for name in get_key(cfg, key):
            cls = DATASET_REGISTRY.get(name)
            if name in seen:
                continue
            seen.add(name)
            if name == "UnlabeledFolder":
                found = FolderItems(current("folder"), os.path.abspath(root), read_images=False)
                if cfg.CC.ENABLED and tuple(cfg.DATASETS.NAMES) == (name,) and not eval_only:
                    refuse_too_few(cfg, len(found.train))
                if name in cfg.DATASETS.NAMES:
                    target = [item[0] for item in found.train]
                    if cfg.CC.ENABLED and cfg.CC.LINKS.FILE and not eval_only:
                        read_answers(cfg.CC.LINKS.FILE, names_below(found.root, target))
            elif _has_readers_check(cls):
                _check_stock(key, name, cls, root)
    if cfg.CC.ENABLED and cfg.CC.SOURCES.FOLDERS and not eval_only:
        number_listed(cfg, list_folders(cfg, read_images=False), target, 0)


def _has_readers_check(cls: type) -> bool:
    """Whether a data set is a public one, whose reader checks its files before it lists them.

    Those of users may do anything; those of `loading/datasets.py` are drawn, or checked above.
    """
    ours = cls.__module__.startswith("fastreid_cc.") and cls.__module__ != configure_from.__module__
    return ours or cls.__module__.startswith("fastreid.")


def _check_stock(key: str, name: str, cls: type, root: str) -> None:
    stock = Dataset.check_before_run

    def only_check(self: Any, files: Any) -> None:
        stock(self, files)
        raise _IsThere

    Dataset.check_before_run = only_check
    try:
        with contextlib.suppress(_IsThere), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an old layout, where nothing lies
            cls(root=root)
    except MissingData as error:
        raise MissingData(f"{key} {error}") from error
    except AssertionError as error:  # MSMT17 has a check of its own
        raise MissingData(f"{key} {missing_data(name, str(error))}") from error
    finally:
        Dataset.check_before_run = stock


def _name_where_it_was_looked_for(stock: Any, self: Any, files: Any) -> None:
    """Around `Dataset.check_before_run`, whose error says neither why nor what to do."""
    try:
        stock(self, files)
    except RuntimeError as error:
        raise MissingData(missing_data(type(self).__name__, str(error))) from error


def missing_data(name: str, found: str) -> str:
    """What to say of a data set that is not there: where it was looked for, what it must hold."""
    root = os.path.abspath(data_build._root)
    is_set = "" if "FASTREID_DATASETS" in os.environ else " (not set: ./datasets)"
    lines = [
        f"{name}: {printable(found.rstrip('.'))}.",
        f"Data sets are looked for below FASTREID_DATASETS={printable(root)}{is_set}.",
    ]
    for known in PUBLISHED:
        if known.name == name:
            train, query, gallery = known.counts
            lines.append(
                f"There {known.folder}/ must hold {', '.join(known.parts)}"
                f" ({train:,}, {query:,} and {gallery:,} images)."
            )
    lines.append(
        "Set FASTREID_DATASETS to the folder above it; `python -m fastreid_cc doctor` shows what is"
        " found."
    )
    return "\n".join(lines)


def _setup(stock: Any, cfg: Any, args: Any) -> Any:
    """Around `default_setup`: checks first; the seed is the config's, and is named as such."""
    if isinstance(getattr(args, "config_file", None), str) and args.config_file:
        args.config_file = find_config(args.config_file)
    preflight(
        cfg,
        resume=bool(getattr(args, "resume", False)),
        eval_only=bool(getattr(args, "eval_only", False)),
        world_size=comm.get_world_size(),
    )
    short = getattr(args, "short_log", False) and cfg.OUTPUT_DIR
    with _seeded(cfg), short_console(cfg.OUTPUT_DIR) if short else contextlib.nullcontext():
        result = stock(cfg, args)
    _log_state(getattr(args, "config_file", None))
    return result


def _log_state(config_file: Any) -> None:
    """One line: how far the shipped config that is run was tested."""
    state = how_tested(config_file) if isinstance(config_file, str) and config_file else ""
    if state and comm.is_main_process():
        name = config_file.removeprefix(PREFIX)
        logger.info(f"{name} is tested: {state} ({TESTED.get(state, 'unknown')})")


@contextlib.contextmanager
def _seeded(cfg: Any) -> Iterator[None]:
    """`default_setup` takes the run's own seed, where it has one, in place of the clock's."""
    stock = defaults.seed_all_rng
    if cfg.CC.ENABLED or cfg.CC.SEED_SUPERVISED:
        defaults.seed_all_rng = lambda: stock((cfg.CC.SEED + comm.get_rank()) % 2**32)
    try:
        yield
    finally:
        defaults.seed_all_rng = stock


def check_before_setup() -> None:
    """Puts the checks before `default_setup` and a data set's own; called once."""
    wrap(defaults, "default_setup", _setup)
    wrap(Dataset, "check_before_run", _name_where_it_was_looked_for)
