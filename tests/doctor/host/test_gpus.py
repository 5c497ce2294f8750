"""nvidia-smi's answers, played: every planted fault of a GPU is a finding, and one that hangs is told."""

import pytest

from nemo_sspo.doctor import nvidia_smi
from nemo_sspo.doctor.host.gpus import gpu_checks
from tests.doctor.by_name import by_name, wrong

SOUND = ("0, 4, Disabled, Default, 0", "1, 4, [N/A], Default, [N/A]")
NVLINK = (
    "\tGPU0\tGPU1\tNIC0\tCPU Affinity\nGPU0\t X \tNV18\tSYS\t0-47\nGPU1\tNV18\t X \tNODE\t0-47\nNIC0\tSYS\tNODE\t X"
)


@pytest.fixture
def smi(program):
    def play(*gpus: str, links: str = NVLINK) -> None:
        lines = "\n".join(gpus)
        program("nvidia-smi", f"case $1 in topo) printf '%s\\n' '{links}';; *) printf '%s\\n' '{lines}';; esac")

    return play


def test_sound_gpus(smi):
    smi(*SOUND)
    assert wrong(gpu_checks()) == []
    assert by_name(gpu_checks())["GPU links"].measured == "NV18"


@pytest.mark.parametrize(
    ("line", "name", "verdict"),
    [
        ("1, 40960, Disabled, Default, 0", "GPU memory", "warning"),
        ("1, 4, Enabled, Default, 0", "MIG", "warning"),
        ("1, 4, Disabled, Exclusive_Process, 0", "compute mode", "warning"),
        ("1, 4, Disabled, Default, 3", "GPU memory errors", "failed"),
    ],
)
def test_a_planted_fault(smi, line, name, verdict):
    smi(SOUND[0], line)
    assert wrong(gpu_checks()) == [(name, verdict)]
    assert "GPU 1" in str(by_name(gpu_checks())[name].measured)


def test_gpus_without_nvlink(smi):
    smi(*SOUND, links=NVLINK.replace("NV18", "PHB"))
    assert wrong(gpu_checks()) == [("GPU links", "warning")]
    smi(SOUND[0])
    assert "GPU links" not in by_name(gpu_checks())


def test_a_driver_that_does_not_answer(program, monkeypatch):
    program("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    (check,) = gpu_checks()
    assert (check.verdict, check.measured) == ("failed", "Failed to initialize NVML: Driver/library version mismatch")
    monkeypatch.setattr(nvidia_smi, "SECONDS", 0.2)
    program("nvidia-smi", "exec sleep 30")
    assert by_name(gpu_checks())["nvidia-smi"].measured == "no answer within 0.2 s"


def test_a_machine_without_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(gpu_checks()) == []
