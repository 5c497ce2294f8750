"""Byte-level BPE tokenizers, trained on the data set's own text.

Both write one `tokenizer.json` that transformers 4 and 5 and vLLM read alike.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY_MULTIPLE = 128

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Every turn is <|role|>text<|end|>; <|end|> is the end-of-sequence token, there is no beginning token."""

POLICY_SPECIALS = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
ORACLE_SPECIALS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
ORACLE_PREFIXES = ("<|source|>", "<|candidate|>", "<|candidate1|>", "<|candidate2|>")
"""PairRM's markers: the hidden states at these tokens are what its head reads."""


def train_policy_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """The policy's tokenizer, of at most `vocabulary` tokens, padded up to a multiple of 128."""
    core = _train_bpe(texts, POLICY_SPECIALS, vocabulary)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|system|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def train_oracle_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """PairRM's tokenizer: `encode` gives [CLS] … [SEP], as DeBERTa's does."""
    core = _train_bpe(texts, ORACLE_SPECIALS + ORACLE_PREFIXES, vocabulary)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, core.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        additional_special_tokens=list(ORACLE_PREFIXES),
        clean_up_tokenization_spaces=False,
    )


def _train_bpe(texts: Iterable[str], specials: tuple[str, ...], vocabulary: int) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    # A small corpus runs out of merges before `vocabulary`; tensor parallelism wants an even split of the rows.
    missing = -core.get_vocab_size() % VOCABULARY_MULTIPLE
    core.add_special_tokens([f"<|unused_{i}|>" for i in range(missing)])
    return core
