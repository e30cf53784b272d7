"""The cost model: by hand, and against the simulation."""

from __future__ import annotations

import pytest

from crispdepth.scale.forecast import Cluster, Prices, Work, hours, money, simulate, storage_gb, workers_for

WORK = Work(seconds=0.5, bytes_in=200e3, bytes_out=100e3, chunk=50)


def test_hours_storage_and_money_by_hand() -> None:
    cluster = Cluster(workers=10, efficiency=0.5, start_s=0)
    assert hours(36_000, WORK, cluster) == pytest.approx(1.0)  # 18,000 s over 10 workers at half their speed
    assert storage_gb(1e6, WORK) == pytest.approx((200, 100))
    prices = Prices(worker_hour=2, gb_month=0.02, million_reads=0.4, million_writes=5)
    expected = 10 * 1.0 * 2 + 3.6 * 0.02 * 3 + (0.072 + 0.00216) * 0.4 + (0.036 + 0.00144) * 5
    assert money(36_000, WORK, cluster, prices, months=3) == pytest.approx(expected)


def test_as_many_workers_as_are_needed_and_no_more() -> None:
    cluster = Cluster(1, efficiency=0.8, start_s=30, kills_an_hour=0.1)
    count = workers_for(1e6, WORK, cluster, within_hours=10)
    assert hours(1e6, WORK, Cluster(count, 0.8, 30, 0.1)) <= 10
    assert hours(1e6, WORK, Cluster(count - 1, 0.8, 30, 0.1)) > 10
    for too_short in (30 / 3600, 0.001):
        with pytest.raises(ValueError, match="to start: ask for more"):
            workers_for(1e6, WORK, cluster, within_hours=too_short)


@pytest.mark.parametrize("kills", [0.0, 5.0])
def test_the_simulation_agrees_where_the_formula_holds(kills: float) -> None:
    cluster = Cluster(workers=8, start_s=20, kills_an_hour=kills)
    simulated = simulate(200_000, WORK, cluster)
    assert simulated.hours == pytest.approx(hours(200_000, WORK, cluster), rel=0.02)
    assert (simulated.deaths > 0) == (kills > 0)
    assert (simulated.redone > 0) == (kills > 0)


def test_more_workers_than_chunks_are_idle() -> None:
    simulated = simulate(500, WORK, Cluster(workers=100, start_s=0), spread=0)
    assert simulated.hours * 3600 == pytest.approx(25)  # ten chunks at once, each half of 50 seconds
    assert simulated.efficiency == pytest.approx(0.1)
