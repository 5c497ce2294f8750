"""The cache of torch's extensions is a node's own, and no lock in it lets an import wait in silence."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from nemo_sspo.errors import UserError
from nemo_sspo.stages.runner import torch_extensions
from nemo_sspo.stages.runner.torch_extensions import ABANDONED_SECONDS, UNUSED, node_local_folder, prepare, skip_unused

# What torch does with its lock.
HOLD = "import os, sys, time; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); print('held', flush=True); time.sleep(60)"


@pytest.fixture
def lock(tmp_path):
    (tmp_path / "managed_alloc_runtime").mkdir()
    return tmp_path / "managed_alloc_runtime" / "lock"


def hold(lock):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_that_a_killed_process_left_is_removed_and_told(lock, tmp_path, capsys):
    process = hold(lock)
    process.kill()
    process.wait()
    old = time.time() - ABANDONED_SECONDS - 1
    os.utime(lock, (old, old))
    prepare(tmp_path)
    assert not lock.exists()
    assert f"{lock}: removed" in capsys.readouterr().out


def test_a_young_lock_without_a_holder_may_be_another_containers_and_is_waited_for(lock, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch_extensions, "ABANDONED_SECONDS", 1.0)
    lock.touch()
    prepare(tmp_path)
    first, second = capsys.readouterr().out.splitlines()
    assert "no process here holds this lock" in first
    assert "removed" in second
    assert not lock.exists()


def test_a_lock_that_is_held_stays_and_its_holder_is_told(lock, tmp_path, capsys):
    process = hold(lock)
    try:
        old = time.time() - ABANDONED_SECONDS - 1
        os.utime(lock, (old, old))
        prepare(tmp_path)
        assert lock.exists()
        assert f"process {process.pid} compiles this extension" in capsys.readouterr().out
    finally:
        process.kill()
        process.wait()


def test_the_default_folder_is_this_users_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = node_local_folder()
    assert folder.is_relative_to(tmp_path)
    prepare(folder)
    assert (tmp_path / f"nemo-sspo-{os.getuid()}").stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (tmp_path / "nemo-sspo-12345").mkdir()
    with pytest.raises(UserError, match="belongs to another user; set TMPDIR"):
        prepare(node_local_folder())


def test_importing_megatron_core_compiles_nothing(tmp_path, monkeypatch):
    """Its extension is named as here, torch cannot build it, and the error is one that megatron-core expects."""
    cpp_extension = pytest.importorskip("torch.utils.cpp_extension")
    core = pytest.importorskip("megatron.core")
    source = Path(core.__path__[0], "inference", "unified_memory.py").read_text()
    (name,) = re.findall(r'load_inline\(\s*name="(\w+)"', source)
    (caught,) = re.findall(r"except \((.+)\):\n +warnings.warn", source)
    skip_unused(tmp_path)
    skip_unused(tmp_path)  # a second process on the node
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    with pytest.raises(NotADirectoryError):  # an OSError
        cpp_extension.load_inline(name=name, cpp_sources=["int one() { return 1; }"], functions=[])
    assert "OSError" in caught
    assert list(tmp_path.iterdir()) == [tmp_path / UNUSED]


def test_an_extension_that_is_there_is_kept(tmp_path):
    built = tmp_path / UNUSED / "main.o"
    built.parent.mkdir()
    built.touch()
    skip_unused(tmp_path)
    assert built.exists()


def test_torch_knows_what_to_compile_for_where_no_gpu_is_in_sight(monkeypatch):
    """megatron-core compiles an extension when it is imported; torch asks the GPUs for what, and there are none."""
    cpp_extension = pytest.importorskip("torch.utils.cpp_extension")
    from nemo_sspo.stages.runner.variables import defaults

    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "")
    with pytest.raises(IndexError):
        cpp_extension._get_cuda_arch_flags()
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", defaults("train")["TORCH_CUDA_ARCH_LIST"])
    assert "-gencode=arch=compute_90,code=sm_90" in cpp_extension._get_cuda_arch_flags()
