from __future__ import annotations

from hypothesis import settings

from nemo_sspo.stages.runner.torch_extensions import node_local_folder, prepare
from nemo_sspo.stages.runner.variables import set_defaults

# Importing megatron-core compiles an extension where there is a CUDA toolkit: as in a stage, and before torch is there.
set_defaults("train")
prepare(node_local_folder())

# How long an example takes is the machine's business: on a busy one hypothesis would call it a failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
