"""fastreid itself is not in install_requires: its wheel pins torch 1.13.1.

Install it beside, without its pins: pip install --no-deps fastreid==1.4.0
"""

from pathlib import Path

from setuptools import find_packages, setup

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

setup(
    name="fastreid_cc",
    version=VERSION,
    description="Label-free re-identification for unmodified fastreid",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["fastreid_cc", "fastreid_cc.*"]),
    install_requires=[
        "torch>=1.13",
        "torchvision",
        "numpy",
        "scipy",
        "scikit-learn>=1.3",
        "numba",
        "pillow",
        "tqdm",
        *NEEDED_BY_FASTREID,
    ],
    extras_require={
        "infomap": ["infomap"],
        "report": ["matplotlib>=3.6"],
        "test": [
            "pytest",
            "pytest-timeout",
            "hypothesis",
            "infomap",
            "matplotlib",
            "ruff",
            "mypy",
            "pyyaml",
        ],
    },
)
