"""GPUs are seen as CUDA sees them: those that can be opened, in the list's reading."""

import pytest

from nemo_sspo import visible_gpus as module
from nemo_sspo.visible_gpus import visible_gpus


@pytest.fixture(autouse=True)
def devices(tmp_path, monkeypatch):
    """A machine of four GPUs beside the driver's other files."""
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / name).touch()
    monkeypatch.setattr(module, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def test_without_a_list_all_that_can_be_opened_counted_from_0(devices):
    assert visible_gpus() == ("0", "1", "2", "3")
    # Slurm's cgroups leave the files there, and refuse to open them for writing, as a folder does.
    for name in ("nvidia0", "nvidia1"):
        (devices / name).unlink()
        (devices / name).mkdir()
    assert visible_gpus() == ("0", "1")


@pytest.mark.parametrize(
    ("listed", "seen"),
    [
        ("2,0", ("2", "0")),
        (" 1 , 3", ("1", "3")),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0,-1,1", ("0",)),
        ("0,7,1", ("0",)),
        ("1,1", ()),
        ("GPU-8932f937-d72c,GPU-5a1b", ("GPU-8932f937-d72c", "GPU-5a1b")),
        ("MIG-c6d4f1ef", ("MIG-c6d4f1ef",)),
    ],
)
def test_a_list_is_read_as_cuda_reads_it(monkeypatch, listed, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == seen


@pytest.mark.parametrize("listed", ["2,0", "-1", "0,-1,1", "1,1", "", "NoDevFiles", "7"])
def test_torch_reads_the_list_alike(monkeypatch, listed):
    cuda = pytest.importorskip("torch.cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    theirs = [number for number in cuda._parse_visible_devices() if number < 4]
    assert visible_gpus() == tuple(map(str, theirs))


def test_a_list_names_nothing_where_there_is_no_gpu(devices, monkeypatch):
    for file in devices.iterdir():
        file.unlink()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert visible_gpus() == ()


def test_on_wsl_one_file_stands_for_all(devices, monkeypatch):
    for file in devices.iterdir():
        file.unlink()
    (devices / "dxg").touch()
    assert visible_gpus() == ("0",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert visible_gpus() == ("0", "1")
