"""A clock that is wrong, that nothing keeps right, or that is not the file server's."""

import os
import time
from types import SimpleNamespace

import pytest

from nemo_sspo.doctor.host import clock
from nemo_sspo.doctor.host.clock import clock_checks, kernel_clock_state
from tests.doctor.by_name import by_name, wrong

YEAR = 365 * 86400.0


@pytest.fixture(autouse=True)
def _synchronised(monkeypatch):
    monkeypatch.setattr(clock, "kernel_clock_state", lambda: 0)


def test_a_right_clock(tmp_path):
    assert wrong(clock_checks(tmp_path / "runs")) == []


def test_a_clock_of_last_year(tmp_path, monkeypatch):
    real = time.time
    monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: real() - YEAR))
    assert wrong(clock_checks(tmp_path)) == [("clock", "failed"), ("clock of the disk", "failed")]


def test_a_clock_that_nothing_keeps_right(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "kernel_clock_state", lambda: 5)
    assert wrong(clock_checks(tmp_path)) == [("clock", "warning")]
    monkeypatch.setattr(clock, "kernel_clock_state", lambda: None)  # a system that does not say
    assert "clock" not in by_name(clock_checks(tmp_path))


def test_a_file_server_whose_clock_is_ahead(tmp_path, monkeypatch):
    ahead = SimpleNamespace(st_mtime=time.time() + 90)
    monkeypatch.setattr(clock, "os", SimpleNamespace(fstat=lambda _: ahead, access=os.access, W_OK=os.W_OK))
    check = by_name(clock_checks(tmp_path))["clock of the disk"]
    assert check.verdict == "failed"
    assert check.measured == pytest.approx(90, abs=1)


def test_the_kernel_is_only_asked():
    before = time.time()
    assert kernel_clock_state() in (None, *range(6))
    assert abs(time.time() - before) < 1


def test_nothing_is_left_behind(tmp_path):
    list(clock_checks(tmp_path))
    assert list(tmp_path.iterdir()) == []
