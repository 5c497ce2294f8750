from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import megatron.core

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.nemo import versions


def test_the_installed_megatron_core_is_a_tested_one() -> None:
    assert versions.require_megatron_core() in versions.MEGATRON_CORE_TESTED


@pytest.mark.parametrize("found", ["0.14.0", "0.17.0", "0.18.0rc1", "a fork"])
def test_another_megatron_core_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setattr(megatron.core, "__version__", found)
    with pytest.raises(UserError, match=rf"megatron-core {found} is not supported.*install megatron-core==0\.15\.3"):
        versions.require_megatron_core()


def test_nemo_needs_the_older_megatron_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda _: "2.7.3")
    monkeypatch.setattr(megatron.core, "__version__", "0.15.3")
    assert versions.require_nemo() == "2.7.3"
    monkeypatch.setattr(megatron.core, "__version__", "0.16.1")
    with pytest.raises(UserError, match=r"megatron-core 0\.16\.1"):
        versions.require_nemo()
    monkeypatch.setattr(versions, "version", lambda _: "3.0.0")
    with pytest.raises(UserError, match=r"nemo-toolkit 3\.0\.0"):
        versions.require_nemo()
