"""The encoder of each configuration kind, imported only when it is used."""

from importlib import import_module

from nemo_sspo.config.encoders import Encoder
from nemo_sspo.encoder.protocol import SentenceEncoder

ENCODERS = {"sentence": "nemo_sspo.encoder.sentence:Sentence"}


def load_encoder(settings: Encoder) -> SentenceEncoder:
    """Load the encoder that the settings describe."""
    module, _, name = ENCODERS[settings.kind].partition(":")
    return getattr(import_module(module), name)(settings)
