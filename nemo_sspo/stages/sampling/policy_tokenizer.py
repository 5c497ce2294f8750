"""The policy's tokenizer, compared with the one that made the prompts."""

from typing import TYPE_CHECKING

from nemo_sspo.artifacts.layout import TOKENS
from nemo_sspo.artifacts.token_record import read_token_record
from nemo_sspo.stages.runner.context import StageContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def same_tokenizer(context: StageContext) -> "PreTrainedTokenizerBase":
    """The sampling policy's tokenizer.

    Raises:
        UserError: it gives other token ids, here, than the one that made the prompts.
    """
    from nemo_sspo.rollout.tokenizer import load_policy_tokenizer, refuse_other_tokens

    prompts = context.input("prompts")
    tokenizer = load_policy_tokenizer(context.policy, context.experiment.data.template_arguments)
    refuse_other_tokens(tokenizer, read_token_record(prompts.file(TOKENS)), context.policy, prompts)
    return tokenizer
