"""The build of the training image ends where it would not hold what a run imports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("nemo.package_info")

from nemo_sspo.megatron.nemo.versions import NEMO_TESTED
from nemo_sspo.megatron.versions import TESTED
from scripts.check_image import MODULES, import_tested, require_own_copy


def test_installed_packages_are_found_where_pip_put_them() -> None:
    for project, module in MODULES.items():
        require_own_copy(project, module)


def test_a_checkout_before_them_on_the_path_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nemo", raising=False)
    (tmp_path / "nemo").mkdir()
    (tmp_path / "nemo" / "__init__.py").touch()
    with pytest.raises(SystemExit, match=f"nemo is imported from {tmp_path}.*, where pip put nemo-toolkit"):
        require_own_copy("nemo-toolkit", "nemo")


def test_an_import_that_compiles_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformer_engine", None)
    assert import_tested("nemo", tmp_path) in NEMO_TESTED
    assert import_tested("core", tmp_path) in TESTED
    (tmp_path / "another_extension").mkdir()
    with pytest.raises(SystemExit, match=r"compiled .*another_extension"):
        import_tested("nemo", tmp_path)
