"""Detail: relief that a network leaves out is put back where readings are alike and fine, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from crispdepth.careful import careful
from crispdepth.degradation import add_noise, downsample, quantise
from crispdepth.detail import SHARE, put_back
from crispdepth.geometry import enlarge, missing
from crispdepth.models.catalog import load
from crispdepth.options import Options
from crispdepth.types import Sample

SIZE, SCALE = (128, 160), 4


def relief(height: float = 0.01) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A wall with low waves before a farther one: the truth, its low map, and the truth without waves."""
    rows = torch.arange(SIZE[0]).view(1, 1, -1, 1) / 6.0
    columns = torch.arange(SIZE[1]).view(1, 1, 1, -1)
    plain = torch.where(columns < 80, 1.0, 2.0).expand(1, 1, *SIZE)
    truth = plain + height * torch.sin(rows)
    low, _ = downsample(truth, torch.ones_like(truth, dtype=torch.bool), SCALE)
    return truth, low, plain.contiguous()


def everywhere(low: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(low, dtype=torch.bool)


def test_relief_comes_back_and_edges_stay_as_they_were() -> None:
    truth, low, plain = relief()
    made = put_back(plain, low, everywhere(low))
    flat = torch.cat([made[..., :60] - truth[..., :60], made[..., 100:] - truth[..., 100:]], -1)
    assert flat.abs().mean() < 0.4 * 0.01 * 2 / torch.pi  # of the waves' own mean
    wrong = torch.where(torch.arange(SIZE[1]) < 84, 1.0, 2.0).expand(1, 1, *SIZE).contiguous()  # an edge 4 px away
    moved = (put_back(wrong, low, everywhere(low)) - wrong)[..., 76:88].abs().amax()
    assert missing(wrong, low, everywhere(low)).abs().amax() > 0.2
    assert moved < 0.1


def test_a_flat_map_gets_the_share_and_the_unit_does_not_matter() -> None:
    _, low, plain = relief()
    made = put_back(plain, low, everywhere(low))
    lost = enlarge(missing(plain, low, everywhere(low)), SIZE)
    torch.testing.assert_close((made - plain)[..., :50], SHARE * lost[..., :50], atol=2e-4, rtol=0.05)
    torch.testing.assert_close(put_back(plain * 1000, low * 1000, everywhere(low)), made * 1000, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("what", ["noise", "rounding", "one value", "no reading"])
def test_where_noise_or_rounding_hides_relief_nothing_is_done(what: str) -> None:
    _, low, plain = relief()
    valid = everywhere(low)
    if what == "noise":
        low = add_noise(low, 0.01, torch.Generator().manual_seed(0))
    elif what == "rounding":
        low = quantise(low, torch.full((1, 1, 1, 1), 40.0))
    elif what == "one value":
        low = torch.ones_like(low)
    else:
        valid = ~valid
    assert torch.equal(put_back(plain, low, valid), plain)


def test_rounding_to_whole_levels_hides_none() -> None:
    _, low, plain = relief()
    fine = quantise(low, torch.full((1, 1, 1, 1), 200.0))
    assert not torch.equal(put_back(plain, fine, everywhere(low)), plain)


def test_what_was_filled_in_tells_nothing() -> None:
    _, low, plain = relief()
    valid = everywhere(low)
    valid[..., 10:20, 4:14] = False
    made = put_back(plain, torch.where(valid, low, 7), valid)
    assert torch.equal(made[..., 52:68, 28:44], plain[..., 52:68, 28:44])


def test_careful_puts_relief_back_for_our_networks_alone() -> None:
    _, low, _ = relief(0.004)
    sample = Sample(rgb=torch.full((1, 3, *SIZE), 0.5), low=low, valid=everywhere(low))
    for name in ("crisp-tiny", "ctkt"):
        model = load(name)
        plain = model(low, sample.valid, sample.rgb if "rgb" in model.inputs else SIZE)
        made = careful(model, sample, SIZE).depth
        assert torch.equal(made, put_back(plain, low, everywhere(low)))
    fgs = load("fgs")
    assert torch.equal(careful(fgs, sample).depth, fgs(low, sample.valid, sample.rgb))


def test_views_see_what_the_first_run_lacked() -> None:
    _, low, _ = relief(0.004)
    rgb = torch.full((1, 3, *SIZE), 0.5)
    sample = Sample(rgb=rgb, low=low, valid=everywhere(low))
    model = load("crisp-tiny+")
    with torch.inference_mode():
        first = model.single(low, sample.valid, rgb)
        again = model(low + missing(first, low, everywhere(low)), sample.valid, rgb)
    torch.testing.assert_close(careful(model, sample).depth, put_back(again, low, everywhere(low)))
    torch.testing.assert_close(
        careful(model, sample, options=Options(once=True)).depth,
        put_back(model(low, sample.valid, rgb), low, everywhere(low)),
    )
