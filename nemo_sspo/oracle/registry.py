"""The oracle of each configuration kind, imported only when it is used."""

from importlib import import_module

from nemo_sspo.config.variants import Oracle
from nemo_sspo.oracle.protocol import PreferenceOracle

ORACLES = {"pairrm": "nemo_sspo.oracle.pairrm:PairRM"}


def load_oracle(settings: Oracle) -> PreferenceOracle:
    """Load the oracle that the settings describe."""
    module, _, name = ORACLES[settings.kind].partition(":")
    return getattr(import_module(module), name)(settings)
