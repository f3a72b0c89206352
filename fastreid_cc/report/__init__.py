"""One self-contained HTML page about one run, or several side by side.

`runs` reads what a run left in its folder, `clusters` and `ranking` compute what is worth looking
at, `charts`, `maps`, `pictures` and `sections` draw it, `verdict` says it in words, `page` puts it
together. fastreid is not needed: features come in as arrays (`plugin/offline/run_features.py`
extracts them from a checkpoint).
"""

from .page import build_page
from .runs import Clustered, Run, RunFeatures, TestSet, read_run

__all__ = ["Clustered", "RunFeatures", "Run", "TestSet", "build_page", "read_run"]
