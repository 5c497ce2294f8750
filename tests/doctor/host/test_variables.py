"""Variables that slow down or blur are told wherever they are set."""

from nemo_sspo.doctor.host.variables import variable_checks
from tests.doctor.by_name import by_name


def test_set_here_or_for_the_training_environment(experiment, monkeypatch):
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    monkeypatch.setenv("NCCL_SHM_DISABLE", "0")
    found = by_name(variable_checks(experiment("+cluster.train.variables.NVIDIA_TF32_OVERRIDE='1'")))
    assert list(found) == ["NCCL_P2P_DISABLE", "NVIDIA_TF32_OVERRIDE"]
    assert found["NCCL_P2P_DISABLE"].note == ("GPUs of a node then talk through the host: unset it, unless it is meant")
