"""Trains stock fastreid with labels, either with the whole plug-in or with its shims alone.

python supervised_run.py plugin|shims OUTPUT CONFIG.yml
"""

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path

mode, output, yaml = sys.argv[1:]
if mode == "shims":  # the package without its __init__, which would activate everything
    core = importlib.util.find_spec("fastreid_cc")
    package = types.ModuleType("fastreid_cc.plugin")
    package.__path__ = [str(Path(core.origin).parent / "plugin")]
    sys.modules[package.__name__] = package
    importlib.import_module("fastreid_cc.plugin.compat").apply_shims()
else:
    importlib.import_module("fastreid_cc.plugin")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from fastreid.config import get_cfg  # noqa: E402
from fastreid.engine import DefaultTrainer  # noqa: E402
from fastreid.modeling.heads import REID_HEADS_REGISTRY  # noqa: E402

torch.set_num_threads(1)
cfg = get_cfg()
cfg.merge_from_file(yaml)
cfg.OUTPUT_DIR = output
Path(output).mkdir(parents=True)
np.random.seed(0)
torch.manual_seed(0)
trainer = DefaultTrainer(cfg)
results = trainer.train()
facts = {
    "has our keys": "CC" in cfg,
    "has our head": "ClusterContrastHead" in REID_HEADS_REGISTRY._obj_map,
    "iterations": trainer.iter,
    "classes": trainer.cfg.MODEL.HEADS.NUM_CLASSES,
    "hooks": [type(hook).__name__ for hook in trainer._hooks],
    "results": {key: float(value) for key, value in results.items()},
}
Path(output, "facts.json").write_text(json.dumps(facts))
