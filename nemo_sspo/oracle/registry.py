"""The oracle of each configuration kind, imported only when it is used."""

from importlib import import_module

from nemo_sspo.config.variants import Oracle
from nemo_sspo.oracle.protocol import PreferenceOracle, Workplace

ORACLES = {
    "pairrm": "nemo_sspo.oracle.pairrm:PairRM",
    "reward_model": "nemo_sspo.oracle.reward_model:RewardModel",
    "llm_judge": "nemo_sspo.oracle.llm_judge:LlmJudge",
    "policy_judge": "nemo_sspo.oracle.policy_judge:PolicyJudge",
    "function": "nemo_sspo.oracle.function:Function",
}


def load_oracle(settings: Oracle, workplace: Workplace | None = None) -> PreferenceOracle:
    """Load the oracle that the settings describe; `workplace` is what a step lends it."""
    module, _, name = ORACLES[settings.kind].partition(":")
    return getattr(import_module(module), name)(settings, workplace=workplace or Workplace())
