from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.report.figures.base import error_bars, log_axis


def test_bars_reach_the_ends_of_the_intervals_also_at_0() -> None:
    bars = error_bars([Interval(0.25, 0.0, 0.75), Interval(0.5, 0.5, 0.5)])
    assert (bars["array"], bars["arrayminus"]) == ([0.5, 0.0], [0.25, 0.0])


def test_ticks_of_a_logarithmic_axis_lie_between_its_values() -> None:
    assert log_axis([1.0, 50.0])["dtick"] == "D2"  # 1, 2, 5 of each decade
    assert log_axis([1e-8, 1.0])["dtick"] == 2
    assert "dtick" not in log_axis([120.0, 180.0])  # 1, 2 and 5 of a decade would be none
    assert log_axis([120.0, 180.0])["type"] == "log"
