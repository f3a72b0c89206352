"""fastreid itself is not in install_requires: its wheel pins torch 1.13.1.

Install it beside, without its pins: pip install --no-deps fastreid==1.4.0
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "fastreid_cc/__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)
NEEDED_BY_FASTREID = [
    "faiss-cpu",
    "opencv-python-headless",
    "tabulate",
    "tensorboard",
    "termcolor",
    "yacs",
]
EXPORT = ["onnx", "onnxscript", "onnxruntime"]


class BuildWithConfigs(build_py):
    """Puts configs/ into the package, where `config/shipped.py` looks when installed."""

    def run(self):
        """Builds the package, then copies the configs, but not for an editable installation."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "fastreid_cc", "configs")
            shutil.copytree(ROOT / "configs", target, dirs_exist_ok=True)


setup(
    name="fastreid_cc",
    version=VERSION,
    description="Label-free re-identification for unmodified fastreid",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)],
    cmdclass={"build_py": BuildWithConfigs},
    packages=find_packages(include=["fastreid_cc", "fastreid_cc.*"]),
    package_data={"fastreid_cc.report": ["templates/*"]},
    install_requires=[
        "torch>=1.13",
        "torchvision",
        "numpy",
        "scipy",
        "scikit-learn>=1.3",
        "numba",
        "pillow",
        "tqdm",
        "jinja2",  # torch needs it too, from 2.0 on
        *NEEDED_BY_FASTREID,
    ],
    extras_require={
        "gpu": ["nvidia-ml-py"],  # lets doctor name the driver; CUDA itself comes with torch
        "infomap": ["infomap"],
        "report": ["matplotlib>=3.6"],
        "export": EXPORT,
        "test": [
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "hypothesis",
            "infomap",
            "matplotlib",
            "ruff",
            "mypy",
            "pyyaml",
            *EXPORT,
        ],
    },
)
