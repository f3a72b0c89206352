"""The packages we need, once: for setup.py, for `doctor`, and for messages about missing ones."""

from __future__ import annotations

import importlib.util
import shlex

from .errors import MissingPackage

FASTREID_COMMAND = "pip install --no-deps fastreid==1.4.0"

#: Import name -> what pip installs. fastreid itself is not here: its wheel pins torch 1.13.1.
NEEDED = {
    "torch": "torch>=2.6",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn>=1.3",
    "numba": "numba",
    "PIL": "pillow",
    "tqdm": "tqdm",
    "jinja2": "jinja2",  # torch needs it too, from 2.0 on
    # imported by fastreid:
    "faiss": "faiss-cpu",
    "cv2": "opencv-python-headless",
    "tabulate": "tabulate",
    "tensorboard": "tensorboard",
    "termcolor": "termcolor",
    "yacs": "yacs",
    "yaml": "pyyaml",
}
#: Extra -> the same of what it brings.
EXTRAS = {
    "gpu": {"pynvml": "nvidia-ml-py"},  # lets doctor name the driver; CUDA itself comes with torch
    "timm": {"timm": "timm>=1.0", "safetensors": "safetensors"},
    "infomap": {"infomap": "infomap"},
    "report": {"matplotlib": "matplotlib>=3.6"},
    "video": {"cv2": NEEDED["cv2"]},  # decodes as trackers do; fastreid imports it anyway
    "gallery": {"qdrant_edge": "qdrant-edge-py>=0.9"},
    "gallery-server": {"qdrant_client": "qdrant-client>=1.16"},
    "export": {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
}


def install_command(name: str) -> str:
    """What to type for the package that is imported as `name`; "" if it is none of ours."""
    if name in NEEDED:
        return f"pip install {shlex.quote(NEEDED[name])}"
    # not by the extra's name: fastreid_cc is on no package index, anyone could put one there
    brought = [packages for packages in EXTRAS.values() if name in packages]
    return f"pip install {' '.join(map(shlex.quote, brought[0].values()))}" if brought else ""


def require_extra(extra: str) -> None:
    """Raises MissingPackage if a package of an extra is not installed."""
    for name in EXTRAS[extra]:
        if importlib.util.find_spec(name) is None:
            raise MissingPackage(f"this needs the package {name}: {install_command(name)}")


def missing_fastreid() -> MissingPackage:
    """The error for a missing fastreid, with the command to type."""
    return MissingPackage(
        "fastreid is not installed. Install it without its outdated pins:\n"
        f"    {FASTREID_COMMAND}\n"
        "or put a clone of github.com/JDAI-CV/fast-reid on PYTHONPATH."
    )


def explain_missing(error: ImportError) -> ImportError:
    """The same error as a MissingPackage, if it is about a package that fastreid or we need."""
    name = (error.name or "").split(".")[0]
    if name == "fastreid":
        return missing_fastreid()
    command = install_command(name)
    if not command:
        return error
    return MissingPackage(f"the package {name!r} is not installed. Install it:\n    {command}")
