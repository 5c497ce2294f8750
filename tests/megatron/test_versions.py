from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import megatron.core
from packaging.version import Version

from nemo_sspo.errors import UserError
from nemo_sspo.megatron import versions


def test_the_installed_version_is_a_tested_one() -> None:
    # Below a checkout newer ones add its commit to their number.
    assert Version(versions.require_megatron_core()).public in versions.TESTED


@pytest.mark.parametrize("found", ["0.15.0", "0.18.0rc1", "0.19.9"])
def test_a_version_beside_a_tested_one_is_taken(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setattr(megatron.core, "__version__", found)
    assert versions.require_megatron_core() == found


@pytest.mark.parametrize("found", ["0.14.9", "0.20.0", "a fork"])
def test_another_megatron_core_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setattr(megatron.core, "__version__", found)
    with pytest.raises(UserError, match=rf"megatron-core {found} is not supported.*install megatron-core==0\.15\.3"):
        versions.require_megatron_core()
