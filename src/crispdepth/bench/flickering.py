"""How much the depth of a film flickers, and how far it is off: steadied, and frame by frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from crispdepth.data.folder import by_stem, files_in, in_order, read_pair
from crispdepth.data.moving import shot, way_back
from crispdepth.degradation import add_noise, check_scale, downsample
from crispdepth.inference import Words, alike, predict
from crispdepth.metrics import flicker, rmse
from crispdepth.models.catalog import load
from crispdepth.options import USUAL
from crispdepth.types import Depth, InputError, Mask, Model, Prediction, Sample
from crispdepth.video import SteadyFilm, carried
from crispdepth.video import way_back as flow_back

NOISES = (0.0, 0.01)  # of the depth: a clean low map, and one as a phone's or a time-of-flight camera's
MADE_SEEDS, MADE_FRAMES, MADE_SIZE = range(200, 206), 8, (240, 320)  # tuning used seeds 100 to 107
SAME = 0.05  # of the true depth: what differs more along the flow is another thing
Way = tuple[np.ndarray, Mask]  # where each pixel was (H, W, 2), and where that is sure


@dataclass(frozen=True)
class Film:
    """Frames with their truth, read one by one, and how the motion between them is known.

    ``back(i, now, before)``: the Way from frame i, ``now``, to the one before.
    """

    name: str
    count: int
    frames: Callable[[], Iterator[Sample]]
    back: Callable[[int, Sample, Sample], Way]


def made() -> list[Film]:
    """Made-up films: their motion is exact."""

    def one(seed: int) -> Film:
        whole = shot(MADE_FRAMES, *MADE_SIZE, seed)

        def back(i: int, now: Sample, before: Sample) -> Way:
            place, seen = way_back(whole, i)
            return np.ascontiguousarray(place.permute(1, 2, 0).numpy()), seen

        return Film(f"made-up films at {MADE_SIZE[1]}x{MADE_SIZE[0]}", MADE_FRAMES, lambda: iter(whole.frames), back)

    return [one(seed) for seed in MADE_SEEDS]


def filmed(rgb: str, depth: str | None, unit: str) -> Film:
    """Pictures and true depth paired by stem; the motion is that of the pictures, where the truth agrees with it.

    ``rgb``, ``depth``: folders. Raises InputError where there are no two pairs.
    """
    if depth is None or not (Path(rgb).is_dir() and Path(depth).is_dir()):
        raise InputError("--rgb and --depth are the folders of a film's pictures and of its true depth: give both")
    pictures, truths = by_stem(files_in(Path(rgb))), by_stem(files_in(Path(depth)))
    both = [*(pictures.keys() & truths.keys())]
    names = [both[i] for i in in_order(both)]
    if len(names) < 2:
        raise InputError(f"{rgb} and {depth}: fewer than two files pair by their stem: check both folders")

    def frames() -> Iterator[Sample]:
        return (read_pair(pictures[name], truths[name], unit, name) for name in names)

    def back(i: int, now: Sample, before: Sample) -> Way:
        place, met = flow_back(_grey(now), _grey(before))
        (truth, valid), (old, old_valid) = _truth(now), _truth(before)
        moved = torch.from_numpy(carried(old[0, 0].numpy(), place, cv2.INTER_LINEAR))[None, None]
        there = torch.from_numpy(carried(old_valid[0, 0].numpy().astype(np.float32), place, cv2.INTER_LINEAR))
        same = (moved - truth).abs() < SAME * truth
        return place, torch.from_numpy(met)[None, None] & valid & same & (there[None, None] > 0.99)

    return Film(Path(rgb).parent.name or rgb, len(names), frames, back)


def measure(
    model: str, films: list[Film], scale: float = 8, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """RMSE and flicker (``metrics.flicker``), means over frames, in the unit of the depth (m), by noise of the low map.

    The low map is the truth shrunk ``scale`` times (antialiased bicubic), then Gaussian noise, new in each frame,
    of NOISES times the depth. Each film's first frame is left out: there is nothing before it.
    """
    network = load(model)
    rows: dict[str, Any] = {}
    check_scale(scale)
    total = len(NOISES) * sum(film.count for film in films)
    done = 0
    for noise in NOISES:
        figures: dict[str, list[float]] = {"rmse": [], "steady rmse": [], "flicker": [], "steady flicker": []}
        for film in films:
            before: tuple[Sample, list[Depth]] | None = None
            for i, (sample, results) in enumerate(_results(network, film, scale, noise)):
                truth, valid = _truth(sample)
                errors = [torch.where(valid, _tensor(result.depth) - truth, 0) for result in results]
                if before is not None:
                    place, sure = film.back(i, sample, before[0])
                    for word, error, old in zip(("", "steady "), errors, before[1], strict=True):
                        came = _tensor(carried(old[0, 0].numpy(), place, cv2.INTER_LINEAR))
                        figures[f"{word}rmse"].append(float(rmse(error, torch.zeros_like(error), valid)))
                        if sure.any():
                            figures[f"{word}flicker"].append(float(flicker(error, came, sure)))
                before = (sample, errors)
                done += 1
                if progress:
                    progress(done, total)
        rows[f"{noise:.0%}"] = {key: float(np.mean(values)) for key, values in figures.items()}
    frames = sum(film.count for film in films)
    return {"model": model, "films": f"{films[0].name}, {frames} frames", "scale": scale, "noise": rows}


def _results(
    network: Model, film: Film, scale: float, noise: float
) -> Iterator[tuple[Sample, tuple[Prediction, Prediction]]]:
    """Each frame with its result alone and its result steadied, as the command would make a film of them."""
    steady, generator = SteadyFilm(), torch.Generator().manual_seed(0)
    waiting: deque[tuple[Sample, Prediction]] = deque()

    def seen(sample: Sample, generator: torch.Generator) -> Words:
        truth, valid = _truth(sample)
        low, there = downsample(truth, valid, scale)
        low = add_noise(low, noise, generator, power=1)
        there = there & (low > 0)
        return {
            "low": low[0, 0].numpy(),
            "valid": there[0, 0].numpy(),
            "unit": "m",
            "rgb": _picture(sample),
            "size": None,
        }

    def few(count: int) -> Iterator[Words]:
        dice = torch.Generator().manual_seed(1)
        return (seen(sample, dice) for sample in islice(film.frames(), 0, None, -(-film.count // count)))

    options = alike(network, few, USUAL)
    for sample in film.frames():
        words = seen(sample, generator)
        picture, plain = words["rgb"], predict(network, **words, **options.words())
        waiting.append((sample, plain))
        steady.push(plain, picture)
        if steady.full:
            one, alone = waiting.popleft()
            yield one, (alone, steady.pop())
    for one, alone in waiting:
        yield one, (alone, steady.pop())


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table, in centimetres, with what steadying leaves of each."""
    head = f"{result['films']}, {result['model']}, x{result['scale']:g}; centimetres, means over frames"
    rows = [
        f"**{head}**",
        "",
        "| noise of the low map | RMSE | steadied | share | flicker | steadied | share |",
        "|---|---|---|---|---|---|---|",
    ]
    for noise, x in result["noise"].items():
        cells = []
        for key in ("rmse", "flicker"):
            plain, steady = x[key], x[f"steady {key}"]
            cells += [f"{100 * plain:.2f}", f"{100 * steady:.2f}", f"{steady / plain:.2f}"]
        rows.append(f"| {noise} of the depth | {' | '.join(cells)} |")
    return "\n".join(rows)


def _truth(sample: Sample) -> tuple[Depth, Mask]:
    assert sample.depth is not None
    assert sample.depth_valid is not None
    return sample.depth, sample.depth_valid


def _picture(sample: Sample) -> np.ndarray:
    assert sample.rgb is not None
    return sample.rgb[0].permute(1, 2, 0).numpy()


def _grey(sample: Sample) -> np.ndarray:
    return cv2.cvtColor(np.round(_picture(sample) * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)


def _tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))[None, None]
