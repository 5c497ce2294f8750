"""The oracle of each configuration kind, imported only when it is used."""

from importlib import import_module

from nemo_sspo.config.oracles import Oracle
from nemo_sspo.oracle.protocol import OracleResources, PreferenceOracle

ORACLES = {
    "pairrm": "nemo_sspo.oracle.pairrm.model:PairRM",
    "reward_model": "nemo_sspo.oracle.reward_model.model:RewardModel",
    "llm_judge": "nemo_sspo.oracle.judge.llm_judge:LlmJudge",
    "policy_judge": "nemo_sspo.oracle.judge.policy_judge:PolicyJudge",
    "function": "nemo_sspo.oracle.function:Function",
}


def load_oracle(settings: Oracle, resources: OracleResources | None = None) -> PreferenceOracle:
    """Load the oracle that the settings describe; `resources` come from the step."""
    module, _, name = ORACLES[settings.kind].partition(":")
    return getattr(import_module(module), name)(settings, resources=resources or OracleResources())
