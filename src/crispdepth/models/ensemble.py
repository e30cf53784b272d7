"""SelfEnsemble: a network on eight views of the same thing, and the mean of what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from crispdepth.types import Depth, InputError, Local, Mask, Model, Rgb, Size

View: TypeAlias = tuple[int, bool]  # turns by 90°, after mirroring or not
Run: TypeAlias = Callable[[View], tuple[Depth, Depth | None]]
VIEWS: tuple[View, ...] = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))


class SelfEnsemble(Model):
    """The mean of what ``model`` says of its input as it is, mirrored, and each turned by 90°, 180° and 270°.

    The geometric self-ensemble of EDSR+ (Lim et al., Enhanced deep residual networks for single image
    super-resolution, CVPR workshops 2017): what a network gets wrong by chance differs from view to view, and the mean
    has less of it. Eight times the time, one set of weights, hardly more memory: the views are made one by one.

    The expected error is the mean of the eight. In tiles, views are those of each tile.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        vars(self).update(inputs=model.inputs, kind=model.kind, wants_clean=model.wants_clean)
        vars(self).update(leaves_relief=model.leaves_relief)
        vars(self).update(bytes_per_pixel=model.bytes_per_pixel + 32)
        if hasattr(model, "estimate"):
            self.estimate = self._estimate
        if hasattr(model, "local"):
            self.local = self._local

    @property
    def single(self) -> Model:
        """The model that sees the views."""
        return self.model

    @property
    def in_levels(self) -> Model | None:
        """The mean over the views of the model that is told of levels."""
        told = self.model.in_levels
        return None if told is None else plus(told)

    def forward(self, low: Depth, valid: Mask, rgb: Rgb) -> Depth:
        """``low`` (b, 1, h, w), its mask, ``rgb`` (b, 3, H, W) to depth (b, 1, H, W) in the unit of ``low``."""
        return self._mean(low=low, valid=valid, rgb=rgb)[0]

    def _estimate(self, **parts: Any) -> tuple[Depth, Depth | None]:
        return self._mean(**parts)

    def _mean(self, **parts: Any) -> tuple[Depth, Depth | None]:
        if hasattr(self.model, "local"):  # as in tiles: the whole map is looked at once, before the views
            size = parts.get("size") or parts["rgb"].shape[-2:]
            each = [
                self._whole({name: x[i : i + 1] for name, x in parts.items() if name != "size"}, size)
                for i in range(len(parts["low"]))  # what is looked at is one map
            ]
            depths, errors = zip(*each, strict=True)
            return torch.cat(depths), None if errors[0] is None else torch.cat(errors)
        estimate: Any = getattr(self.model, "estimate", None)

        def run(view: View) -> tuple[Depth, Depth | None]:
            seen = {name: _seen(part, view) for name, part in parts.items()}
            return (self.model(**seen), None) if estimate is None else estimate(**seen)

        return _over_views(run)

    def _whole(self, parts: dict[str, torch.Tensor], size: Size) -> tuple[Depth, Depth | None]:
        rgb = parts.get("rgb")
        work = self._local(parts["low"], parts["valid"], rgb)
        return work.run(work.low, rgb, (size[0], size[1]))

    def _local(self, low: Depth, valid: Mask, rgb: Rgb | None) -> Local:
        local: Any = self.model.local
        work: Local = local(low, valid, rgb)

        def run(maps: tuple[torch.Tensor, ...], colours: Rgb | None, size: Size) -> tuple[Depth, Depth | None]:
            return _over_views(
                lambda view: work.run(
                    tuple(_seen(x, view) for x in maps),
                    None if colours is None else _seen(colours, view),
                    _seen(size, view),
                )
            )

        return Local(work.low, run, work.halo_low_px)


class SelfEnsembleAlone(SelfEnsemble):
    """The same of a model that sees no colours."""

    def forward(self, low: Depth, valid: Mask, size: Size) -> Depth:  # type: ignore[override]
        """``low`` (b, 1, h, w) and its mask to depth (b, 1, *size), in the unit of ``low``."""
        return self._mean(low=low, valid=valid, size=size)[0]


def plus(model: Model) -> SelfEnsemble:
    """``model`` on eight views. Raises InputError for one that takes no low map, or sees eight already."""
    if isinstance(model, SelfEnsemble):
        raise InputError("one + is enough: there are no more than eight views")
    if "low" not in model.inputs:
        raise InputError(f"{type(model).__name__} sees a picture alone, where up and down matter: leave the + out")
    return (SelfEnsemble if "rgb" in model.inputs else SelfEnsembleAlone)(model)


def _over_views(run: Run) -> tuple[Depth, Depth | None]:
    """The mean depth and expected error of ``run``, which sees one view after the other, turned back."""
    total: list[torch.Tensor] = []
    for view in VIEWS:
        made = [_back(x, view) for x in run(view) if x is not None]
        total = [before + x for before, x in zip(total, made, strict=True)] if total else made
    depth, *error = (x / len(VIEWS) for x in total)
    return depth, error[0] if error else None


def _seen(x: Any, view: View) -> Any:
    """A map (b, c, h, w), or a size, as it is in a view: mirrored, then turned."""
    turns, mirrored = view
    if not isinstance(x, torch.Tensor):
        return tuple(x)[::-1] if turns % 2 else tuple(x)
    return torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1)).contiguous()


def _back(x: torch.Tensor, view: View) -> torch.Tensor:
    """``_seen`` undone."""
    turns, mirrored = view
    x = torch.rot90(x, -turns, (-2, -1))
    return x.flip(-1) if mirrored else x
