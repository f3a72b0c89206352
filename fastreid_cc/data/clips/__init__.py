"""From a clip and a tracker's text to a folder of crops; faults of crops; boxes of what moves."""

from .boxes import Boxes, read_boxes, write_mot
from .choose import Limits, choose_candidates, fit
from .frames import Clip, open_clip
from .movers import find_movers
from .quality import FaultLimits, Faults, find_faults
from .write import Written, camera_name, write_crops

__all__ = [
    "Boxes",
    "Clip",
    "FaultLimits",
    "Faults",
    "Limits",
    "Written",
    "camera_name",
    "choose_candidates",
    "find_faults",
    "find_movers",
    "fit",
    "open_clip",
    "read_boxes",
    "write_crops",
    "write_mot",
]
