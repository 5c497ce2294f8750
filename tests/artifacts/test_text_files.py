"""What is no ordinary file is refused by its name, and nothing is waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemo_sspo.artifacts.text_files import read_text
from nemo_sspo.errors import UserError


def test_a_text_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("ä\n", encoding="utf-8")
    assert read_text(tmp_path / "t", most=3) == "ä\n"
    with pytest.raises(UserError, match="t: 3 bytes, more than the 2 that such a file has"):
        read_text(tmp_path / "t", most=2)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "loop", "endless", "."):
        with pytest.raises(UserError, match="cannot be read"):
            read_text(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        read_text(tmp_path / ("x" * 300))
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "absent")
