"""Teachers: who labels pictures that nobody labelled; their labels are made once and kept as 8-bit PNG."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track

from crispdepth.data.folder import Readers
from crispdepth.extras import late
from crispdepth.geometry import resize_rgb
from crispdepth.io import read_label, write_label
from crispdepth.models.catalog import WEIGHTS
from crispdepth.models.pretrained import pretrained
from crispdepth.models.symbiotic import DEVIATION, MEAN, Symbiotic
from crispdepth.types import Classes, InputError, Rgb, Sample, Size

SHORT_SIDE, MULTIPLE = 512, 32  # pixels at which segmentation models see a picture
UNSURE = 255  # the class of what the teacher is not sure of


class Teacher(ABC):
    """A frozen network that tells a fixed list of classes apart, in pictures of any data set."""

    class_names: tuple[str, ...]
    network: torch.nn.Module

    @abstractmethod
    def scores(self, rgb: Rgb) -> torch.Tensor:
        """(b, 3, H, W) to probabilities (b, K, h, w) at a size of its own."""

    def __call__(self, rgb: Rgb) -> tuple[Classes, torch.Tensor]:
        """The likeliest class of every pixel, uint8, and how sure that is, 0..1: (b, 1, H, W) each."""
        self.network.to(rgb.device)
        size = (rgb.shape[-2], rgb.shape[-1])
        with torch.inference_mode():
            sure, classes = self.scores(rgb).float().max(1, keepdim=True)
            sure = F.interpolate(sure.clamp(0, 1), size, mode="bilinear")
            classes = F.interpolate(classes.float(), size, mode="nearest-exact").to(torch.uint8)
        return classes.clone(), sure.clone()

    def __deepcopy__(self, _: Any) -> Self:
        return self  # whoever copies its student (an average of weights) needs no second teacher


class SymbioticTeacher(Teacher):
    """Weights of Symbiotic's own, trained on few labels."""

    def __init__(self, path: Path) -> None:
        self.network: Symbiotic = Symbiotic.from_file(path).eval()
        self.class_names = self.network.class_names

    def scores(self, rgb: Rgb) -> torch.Tensor:
        return self.network.depth_and_logits(self.network.at_scale(rgb))[1].float().softmax(1)


class HubTeacher(Teacher):
    """A semantic segmentation model of Transformers, by its name on the Hugging Face hub or its folder.

    Per-pixel classifiers (SegFormer, UPerNet, BEiT …) and mask classifiers (Mask2Former, MaskFormer).
    """

    def __init__(self, name: str) -> None:
        transformers = late("transformers")
        try:
            config = transformers.AutoConfig.from_pretrained(name)
            pixels = type(config) in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
            kind = transformers.AutoModelForSemanticSegmentation
            if not pixels:
                kind = transformers.AutoModelForUniversalSegmentation
            self.network = pretrained(kind, name).eval()
        except InputError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            text = " ".join(str(error).split())[:200]
            raise InputError(f"no segmentation model could be loaded from {name}: {text}") from error
        self.class_names = tuple(str(config.id2label[i]) for i in range(len(config.id2label)))
        if len(self.class_names) > UNSURE:
            raise InputError(f"{name} tells {len(self.class_names)} classes apart: 8-bit labels hold 255 at most")
        self.mean, self.deviation = _normalisation(transformers, name)

    def scores(self, rgb: Rgb) -> torch.Tensor:
        out = self.network((resize_rgb(rgb, _seen_size(rgb)) - self.mean.to(rgb)) / self.deviation.to(rgb))
        if "logits" in out:
            return out.logits.float().softmax(1)
        classes = out.class_queries_logits.float().softmax(-1)[..., :-1]
        return torch.einsum("bqk,bqhw->bkhw", classes, out.masks_queries_logits.float().sigmoid())


def teacher_named(name: str) -> Teacher:
    """The teacher in weights of Symbiotic's own, a file or those in the package; else that of this name on the hub."""
    path = own_weights(name)
    return SymbioticTeacher(path) if path else HubTeacher(name)


def own_weights(name: str) -> Path | None:
    """The file of weights that ``name`` stands for: itself (.safetensors), or one inside the package; else None."""
    inside = WEIGHTS / f"{name}.safetensors"
    return Path(name) if name.endswith(".safetensors") else inside if inside.is_file() else None


def taught(readers: Readers, teacher: Teacher, name: str, folder: Path, confidence: float) -> Readers:
    """The same samples with the teacher's classes; what it is less than ``confidence`` sure of is unlabelled.

    The labels are made now, where ``folder`` does not hold them yet: TEACHER/SAMPLE.png, the classes, and
    TEACHER/SAMPLE.confidence.png, 0 to 255. ``name``: of the teacher. Raises InputError where other pictures of these
    names, or another teacher of this one, made those that are there.
    """
    place = folder / _plain(name)
    place.mkdir(parents=True, exist_ok=True)
    made_of, said = place / "made_of.txt", _made_of(readers, teacher)
    if made_of.is_file() and made_of.read_text() != said:
        raise InputError(f"{place}: labels of other pictures, or by another teacher: delete it, and they are made anew")
    made_of.write_text(said)
    paths = {sample: place / f"{_plain(sample)}.png" for sample in readers}
    missing = [sample for sample, path in paths.items() if not _sure_path(path).is_file()]
    if missing:
        for sample in track(missing, f"labels of {name}", console=Console(stderr=True), transient=True):
            rgb = readers[sample]().rgb
            if rgb is None:
                raise InputError(f"{sample} lacks a picture: training needs one")
            classes, sure = teacher(rgb)
            write_label(paths[sample], classes[0, 0].numpy())
            write_label(_sure_path(paths[sample]), (sure[0, 0] * 255).round().to(torch.uint8).numpy())
    return {sample: partial(_with_labels, readers[sample], path, confidence) for sample, path in paths.items()}


def _made_of(readers: Readers, teacher: Teacher) -> str:
    """A checksum of the teacher, and of the first and the last picture: all would take as long as the labels."""
    weights = teacher.network.state_dict().values()
    sums = [zlib.crc32(x.cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes()) for x in weights]
    for sample in {min(readers), max(readers)} if readers else ():
        rgb = readers[sample]().rgb
        sums.append(0 if rgb is None else zlib.crc32(rgb.contiguous().numpy().tobytes()))
    return f"{zlib.crc32(repr(sorted(sums)).encode()):08x}\n"


def _with_labels(read: Any, path: Path, confidence: float) -> Sample:
    sample, classes, sure = read(), read_label(path), read_label(_sure_path(path))
    if sample.rgb is None or classes.shape != sample.rgb.shape[-2:] or sure.shape != classes.shape:
        raise InputError(f"{path}: labels of another picture; delete {path.parent}, and they are made anew")
    classes = np.where(sure >= round(confidence * 255), classes, UNSURE)
    return replace(sample, classes=torch.from_numpy(classes.astype(np.uint8))[None, None])


def _sure_path(path: Path) -> Path:
    return path.with_suffix(".confidence.png")


def _plain(name: str) -> str:
    """A name that can be a file's, and no other name's."""
    return quote(name, safe="")


def _seen_size(rgb: Rgb) -> Size:
    height, width = rgb.shape[-2:]
    scale = SHORT_SIDE / min(height, width)
    tall, wide = (max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (height, width))
    return tall, wide


def _normalisation(transformers: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation as the model's own preprocessor says, ImageNet's where it says nothing."""
    try:
        said, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        said = {}
    values = (said.get("image_mean", MEAN), said.get("image_std", DEVIATION))
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in values)
    return mean, deviation
