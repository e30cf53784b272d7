"""Pictures for people: nothing in them covers anything else."""

from __future__ import annotations

import numpy as np

from crispdepth.picture import PAPER, Range, comparison, depth_panel


def test_the_legend_of_a_small_panel_stays_under_it() -> None:
    depth = np.linspace(1234.5, 1239.5, 96 * 128, dtype=np.float32).reshape(96, 128)
    valid = np.ones_like(depth, dtype=bool)
    sheet = comparison([depth_panel(depth, valid, Range(1234.5, 1239.5, "levels"), "a")] * 2, columns=2)
    middle = sheet.shape[1] // 2
    assert (sheet[:, middle - 4 : middle + 4] == PAPER).all()  # the gap between both
