"""fastreid itself is not in install_requires: its wheel pins torch 1.13.1.

Install it beside, without its pins: pip install --no-deps fastreid==1.4.0
"""

import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))  # an isolated build does not look here

from fastreid_cc import __version__  # noqa: E402  neither imports a package
from fastreid_cc.requirements import EXTRAS, NEEDED  # noqa: E402

FOR_TESTS = ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "ruff", "mypy"]


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
    version=__version__,
    description="Label-free re-identification for unmodified fastreid",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)],
    cmdclass={"build_py": BuildWithConfigs},
    packages=find_packages(include=["fastreid_cc", "fastreid_cc.*"]),
    package_data={"fastreid_cc.report": ["templates/*"]},
    install_requires=list(NEEDED.values()),
    extras_require={
        **{extra: list(packages.values()) for extra, packages in EXTRAS.items()},
        "test": [
            *FOR_TESTS,
            *(EXTRAS["infomap"] | EXTRAS["report"] | EXTRAS["export"] | EXTRAS["timm"]).values(),
            *EXTRAS["gallery"].values(),
        ],
    },
)
