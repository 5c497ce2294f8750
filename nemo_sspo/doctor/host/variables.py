"""Environment variables that make training slower or less exact, and may be set by mistake."""

import os
from collections.abc import Iterator

from nemo_sspo.config.experiment import Experiment
from nemo_sspo.doctor.check import Check

_HARMFUL = {
    "NCCL_P2P_DISABLE": "GPUs of a node then talk through the host",
    "NCCL_SHM_DISABLE": "processes of a node then talk through the network",
    "NCCL_IB_DISABLE": "nodes then talk over TCP",
    "NVIDIA_TF32_OVERRIDE": "products in fp32 may then keep 10 bits",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "products in fp32 then keep 10 bits",
}


def variable_checks(experiment: Experiment) -> Iterator[Check]:
    """One for each that is set, here or for the training environment."""
    given = {**os.environ, **experiment.cluster.train.variables}
    for name, effect in _HARMFUL.items():
        if given.get(name, "0") != "0":
            yield Check(name, "warning", given[name], note=f"{effect}: unset it, unless it is meant")
