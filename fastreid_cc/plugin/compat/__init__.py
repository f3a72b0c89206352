"""Run-time shims that make unmodified fastreid 1.4.0 run on today's Python and torch.

One function per shim, in files by subject; `SHIMS` lists them in the order they are applied. Each
docstring says what breaks, for which versions, what the shim does, which test shows it and when it
may go. No file of fastreid is edited.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from fastreid_cc.errors import MissingPackage

from . import (
    checkpoint,
    config,
    datasets,
    evaluation,
    hooks,
    imports,
    launch,
    loader,
    metrics,
    model,
    optimizer,
    output,
    patching,
    precision,
    transforms,
    weights,
)
from .imports import import_fastreid, require_fastreid
from .loader import close_loader, swap_loader

__all__ = [
    "SHIMS",
    "MissingPackage",
    "apply_shims",
    "close_loader",
    "disabled",
    "require_fastreid",
    "swap_loader",
]

SHIMS: list[Callable[[], None]] = [
    imports.restore_numpy_bool,
    imports.stand_in_for_bughook,
    imports.describe_environment_or_carry_on,
    config.read_plain_yaml,
    config.open_shipped_configs,
    config.explain_wrong_keys,
    loader.load_without_cuda_and_never_hang,
    loader.build_loaders_for_the_models_device,
    loader.collate_numpy_values,
    datasets.sort_mixed_identities,
    datasets.name_the_image_that_failed,
    datasets.never_start_ghostscript,
    datasets.refuse_too_few_identities,
    datasets.sample_weighted_sets,
    transforms.build_affine_transform,
    transforms.read_pixels_quietly,
    weights.load_cached_weights,
    weights.explain_missing_hub_weights,
    weights.read_own_weights_in_any_wrapping,
    model.build_on_the_cpu_without_cuda,
    model.distribute_models_on_the_cpu,
    model.build_regnets_from_anywhere,
    model.explain_flatten,
    optimizer.keep_flat_gradients,
    optimizer.check_schedule,
    evaluation.evaluate_without_compiling,
    evaluation.rank_small_galleries,
    evaluation.normalise_images_once,
    evaluation.add_distances_by_keyword,
    evaluation.rerank_without_faiss_gpu,
    checkpoint.save_whole_checkpoints,
    checkpoint.load_tensors_only,
    checkpoint.resume_from_the_newest_whole_checkpoint,
    output.name_an_output_folder_that_cannot_be_written,
    metrics.end_metrics_at_a_whole_line,
    metrics.write_every_scalar,
    metrics.write_metrics_before_the_checkpoint,
    hooks.evaluate_never_when_period_is_zero,
    hooks.train_to_the_end,
    hooks.checkpoint_without_test_sets_and_remember_the_best,
    metrics.print_in_short_runs,
    metrics.write_the_metrics_of_an_evaluation,
    hooks.close_precise_bn_loader,
    hooks.average_weights,
    hooks.profile_on_any_device,
    hooks.explain_a_loss_that_is_not_finite,
    precision.train_in_bfloat16_without_cuda,
    launch.launch_without_cuda,
    launch.launch_under_torchrun,
]

_applied = False


def apply_shims() -> None:
    """Imports fastreid and applies every shim. Calling it again does nothing.

    Raises:
        MissingPackage: if fastreid, or something it needs, is not installed.
    """
    global _applied
    if _applied:
        return
    import_fastreid()
    for shim in SHIMS:
        shim()
    _applied = True


@contextlib.contextmanager
def disabled(*names: str) -> Iterator[None]:
    """For tests: stock behaviour in place of the shims called `names`, as long as the block runs.

    Raises:
        ValueError: if there is no such shim.
    """
    unknown = set(names) - {shim.__name__ for shim in SHIMS}
    if unknown:
        raise ValueError(f"no shim called {sorted(unknown)}")
    with patching.without(names, SHIMS):
        yield
