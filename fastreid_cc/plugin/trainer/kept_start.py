"""CC.KEEP_START: where training seems to have harmed, the weights of the start are the result."""

from __future__ import annotations

from pathlib import Path

import torch
from fastreid.utils import comm
from torch import Tensor, nn

from ...files import write_atomically
from ...parallel.collectives import unwrapped
from .teacher_hook import TeacherHook

NAME = "model_trained.pth"


class KeptStart:
    """Weights of the start, kept on the CPU and in checkpoints, and put back on demand.

    Of the network, and of the mean teacher, which starts as the same. One copy of the weights; a
    checkpoint in the midst of a training grows by as much.

    Args:
        output: OUTPUT_DIR.
        teacher: the hook of the mean teacher, if there is one.

    Attributes:
        state: None before the start is known, and after it was put back or given up.
    """

    def __init__(self, output: str, teacher: TeacherHook | None) -> None:
        self.output, self.teacher = Path(output), teacher
        self.state: dict[str, Tensor] | None = None

    def remember(self, model: nn.Module) -> None:
        """Copies the weights."""
        state = unwrapped(model).state_dict()
        self.state = {name: value.detach().cpu().clone() for name, value in state.items()}

    def put_back(self, model: nn.Module) -> None:
        """Writes the trained weights to `model_trained.pth`; network and teacher get the start's.

        In place, so optimizer and parallel replicas go on with the same tensors.
        """
        assert self.state is not None, "the start is remembered before it is put back"
        trained = unwrapped(model if self.teacher is None else self.teacher.evaluated)
        if comm.is_main_process():
            with write_atomically(self.output / NAME) as part:
                torch.save({"model": trained.state_dict()}, part)
        networks = [model] if self.teacher is None else [model, self.teacher.model]
        for network in networks:
            unwrapped(network).load_state_dict(self.state)
        self.state = None


def kept_message(before: float, after: float) -> str:
    """What is said when the start is kept, and what to do.

    >>> "model_trained.pth" in kept_message(1.0, 0.5)
    True
    """
    return (
        "The weights of the start are kept: model_final.pth holds them, what was trained is in"
        f" {NAME} (labels in the checkpoint are its own). Why: fewer images are found by their"
        f" mirror image than at the start (mirror_rank {before:.3f} → {after:.3f}), so this folder"
        " is perhaps not fit for the recipe. That figure can be wrong (docs/own-images.md): with"
        " a test set compare start/mAP with trained/mAP, without one look at both by `report`. More"
        " images of each individual, CC.FOLDER.CAMERA, a lower SOLVER.BASE_LR or a checkpoint of"
        " more similar images may help; CC.KEEP_START False keeps what was trained in any case."
    )
