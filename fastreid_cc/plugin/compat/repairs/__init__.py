"""Mends of fastreid's other bugs, each of which FASTREID_CC_WITHOUT_REPAIRS switches off by name.

Trainings, evaluations and label-free runs go through without any of them, with fastreid's bugs.
"""

from __future__ import annotations

from collections.abc import Callable

from . import (
    checkpoints,
    config_files,
    end_of_training,
    evaluation,
    full_disk,
    images,
    loaders,
    metrics_files,
    model_building,
    pretrained_weights,
    profiling_and_averaging,
    samplers,
    schedules,
    torchrun,
)

#: In the order they are applied.
REPAIRS: tuple[Callable[[], None], ...] = (
    config_files.read_plain_yaml,
    config_files.open_shipped_configs,
    config_files.explain_wrong_keys,
    loaders.hand_over_errors,
    loaders.build_loaders_for_the_models_device,
    loaders.collate_numpy_values,
    loaders.close_precise_bn_loader,
    images.name_the_image_that_failed,
    images.never_start_ghostscript,
    images.silence_deprecations,
    samplers.sort_mixed_identities,
    samplers.refuse_too_few_identities,
    samplers.sample_weighted_sets,
    pretrained_weights.load_cached_weights,
    pretrained_weights.explain_missing_hub_weights,
    pretrained_weights.read_own_weights_in_any_wrapping,
    model_building.build_regnets_from_anywhere,
    model_building.explain_flatten,
    schedules.explain_impossible_optimizers,
    schedules.check_schedule,
    evaluation.rank_small_galleries,
    evaluation.normalise_images_once,
    evaluation.rerank_without_faiss_gpu,
    checkpoints.save_whole_checkpoints,
    checkpoints.load_tensors_only,
    checkpoints.resume_from_the_newest_whole_checkpoint,
    checkpoints.remember_the_best_metric,
    full_disk.name_an_output_folder_that_cannot_be_written,
    metrics_files.write_every_scalar_on_a_whole_line,
    metrics_files.write_the_metrics_of_an_evaluation,
    metrics_files.write_metrics_before_the_checkpoint,
    metrics_files.print_in_short_runs,
    end_of_training.evaluate_at_the_end_only,
    end_of_training.train_to_the_end,
    end_of_training.explain_a_loss_that_is_not_finite,
    profiling_and_averaging.average_weights,
    profiling_and_averaging.profile_on_any_device,
    torchrun.launch_under_torchrun,
)
