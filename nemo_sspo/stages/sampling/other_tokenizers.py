"""The tokenizers of oracle and encoder, checked before the first response is sampled.

They are loaded in the environment that makes scores and embeddings, so an error there shows up now.
"""

from pathlib import Path

from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.oracles import PairRMOracle, RewardModelOracle
from nemo_sspo.encoder.files import backbone_folders
from nemo_sspo.oracle.pairrm.checkpoint import inspect_pairrm
from nemo_sspo.tokens.library import load_tokenizer


def refuse_other_tokenizers(experiment: Experiment) -> None:
    """Load each of a local directory; a hub's model is left to the stage that needs it.

    Raises:
        UserError: one cannot be loaded, or gives other ids than its own file.
    """
    oracle, encoder = experiment.oracle, experiment.encoder
    if isinstance(oracle, PairRMOracle) and Path(oracle.path).is_dir():
        backbone = inspect_pairrm(oracle.path).backbone
        if Path(backbone).is_dir():
            load_tokenizer(backbone, f"oracle: {backbone}", framed=True)
    if isinstance(oracle, RewardModelOracle) and Path(oracle.path).is_dir():
        code = oracle.trust_remote_code
        load_tokenizer(oracle.path, f"oracle.path={oracle.path}", trust_remote_code=code, framed=True)
    if Path(encoder.path).is_dir() and not encoder.trust_remote_code:
        for folder in backbone_folders(Path(encoder.path)):
            load_tokenizer(folder, f"encoder.path={encoder.path}", framed=True)
