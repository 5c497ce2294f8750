from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.report.figures.base import error_bars


def test_bars_reach_the_ends_of_the_intervals_also_at_0() -> None:
    bars = error_bars([Interval(0.25, 0.0, 0.75), Interval(0.5, 0.5, 0.5)])
    assert (bars["array"], bars["arrayminus"]) == ([0.5, 0.0], [0.25, 0.0])
