"""What is tracked has the names that people give files: nothing that a test left behind gets into a commit."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_tracked_names_are_plain():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a checkout")
    tracked = done.stdout.split("\0")[:-1]
    odd = [name for name in tracked if not re.fullmatch(r"[A-Za-z0-9._/-]+", name)]
    top = [ROOT / name for name in tracked if "/" not in name]
    empty = [path for path in top if path.is_file() and not path.stat().st_size]
    assert odd == empty == []
