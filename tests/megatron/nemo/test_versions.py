from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import megatron.core

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.nemo import versions


def test_the_installed_versions_are_tested_ones() -> None:
    assert versions.require_nemo() in versions.NEMO_TESTED
    assert megatron.core.__version__ in versions.MEGATRON_CORE_TESTED


@pytest.mark.parametrize("found", ["0.14.0", "0.16.1", "0.18.0rc1", "a fork"])
def test_another_megatron_core_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setattr(megatron.core, "__version__", found)
    with pytest.raises(UserError, match=rf"megatron-core {found} is not supported.*install megatron-core==0\.15\.3"):
        versions.require_nemo()


def test_another_nemo_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda _: "3.0.0")
    with pytest.raises(UserError, match=r"nemo-toolkit 3\.0\.0"):
        versions.require_nemo()
