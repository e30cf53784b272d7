"""crispdepth: give it what the sensor gave you, and get sharp metric depth.

import crispdepth as cd
model = cd.load("fgs")
pred = cd.predict(model, low="depth.png", rgb="photo.jpg", unit="mm")
cd.write_depth("sharp.png", pred.depth)
"""

from crispdepth.about import names
from crispdepth.bench.evaluation import evaluate
from crispdepth.data.scenes import scenes
from crispdepth.geometry import Camera
from crispdepth.inference import predict
from crispdepth.intrinsics import read_intrinsics
from crispdepth.io import read_depth, read_rgb, write_depth, write_points
from crispdepth.memory import keep_freed
from crispdepth.mesh import point_cloud
from crispdepth.models.catalog import load
from crispdepth.types import InputError, Prediction, Sample

__all__ = [
    "Camera",
    "InputError",
    "Prediction",
    "Sample",
    "evaluate",
    "keep_freed",
    "load",
    "names",
    "point_cloud",
    "predict",
    "read_depth",
    "read_intrinsics",
    "read_rgb",
    "scenes",
    "write_depth",
    "write_points",
]
