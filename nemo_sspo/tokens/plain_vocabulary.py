"""Tokenizers that are kept as a plain vocabulary: vocab.txt, or vocab.json with merges.txt.

Such files list tokens. The rules by which a text becomes tokens are in a class of transformers and in the settings of
tokenizer_config.json: those of a few classes are known here, a vocabulary of any other is refused. Neither transformers
nor tokenizers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemo_sspo.artifacts.json_files import json_or_empty
from nemo_sspo.errors import UserError

_MERGES = "merges.txt"
_BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
_GPT2 = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
_QWEN2 = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
_ROBERTA = {
    **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>"},
    **{"cls_token": "<s>", "mask_token": "<mask>"},
}

Rules = Literal["wordpiece", "gpt2", "roberta", "qwen2"]
_CLASSES: Mapping[str, tuple[Rules, Mapping[str, str]]] = {
    "BertTokenizer": ("wordpiece", _BERT),
    "DistilBertTokenizer": ("wordpiece", _BERT),
    "ElectraTokenizer": ("wordpiece", _BERT),
    "GPT2Tokenizer": ("gpt2", _GPT2),
    "RobertaTokenizer": ("roberta", _ROBERTA),
    "Qwen2Tokenizer": ("qwen2", _QWEN2),
}
"""Rules of a class, and the tokens that it has unless the files name others."""
_CLASS_OF_MODEL = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "gpt2": "GPT2Tokenizer",
    "roberta": "RobertaTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
}
"""What transformers takes where the files name no class."""
_OF_SLOW_CLASSES = {"do_basic_tokenize": True, "wordpieces_prefix": "##", "split_special_tokens": False}
"""Settings of which only this value means the same everywhere."""


@dataclass(frozen=True)
class PlainVocabulary:
    """A vocabulary and the rules that belong to it."""

    path: Path
    rules: Rules
    ids: Mapping[str, int]
    named: Mapping[str, str]
    """Tokens that the class has where the files name none."""
    config: Mapping[str, Any]
    """tokenizer_config.json."""

    @property
    def merges(self) -> Path:
        """Which pairs of tokens a byte-level vocabulary joins, in order."""
        return self.path.parent / _MERGES

    def setting(self, name: str, default: bool | None) -> bool | None:
        """A setting of the class that is true or false, or None where that is its default.

        Raises:
            UserError: it is neither.
        """
        value = self.config.get(name, default)
        if not isinstance(value, bool) and not (value is None and default is None):
            raise UserError(f"{self.path.parent / 'tokenizer_config.json'}: {name} is {value!r}, not true or false")
        return value


def read_plain_vocabulary(path: Path) -> PlainVocabulary:
    """Read vocab.txt or vocab.json.

    Raises:
        UserError: it is of a class, or has a setting, whose rules are not known; a file is not what its name says.
    """
    directory = path.parent
    config = json_or_empty(directory / "tokenizer_config.json")
    name = _class_name(config, json_or_empty(directory / "config.json"))
    rules, named = _CLASSES.get(name, (None, {}))
    if rules is None or (rules == "wordpiece") != (path.name == "vocab.txt"):
        raise UserError(f"{path}: {_unknown(f'the rules of {name} for it', 'they are')}")
    for key, same in _OF_SLOW_CLASSES.items():
        if (value := config.get(key, same)) != same:
            raise UserError(f"{path}: {_unknown(f'what {key}={value} makes of it', 'it is')}")
    if config.get("never_split"):
        raise UserError(f"{path}: {_unknown('what never_split makes of it', 'it is')}")
    kept = {key: token for key, token in named.items() if config.get(key, token) is not None}
    found = PlainVocabulary(path, rules, _ids(path), kept, config)
    if rules == "wordpiece":
        _refuse_untold_case(found)
    else:
        _refuse_other_merges(found.merges)
    return found


def unknown_kind(path: Path) -> UserError:
    """What is said of a file that no program of this project reads."""
    return UserError(f"{path}: {_unknown('how it splits a text', 'it is')}")


def _unknown(what: str, they_are: str) -> str:
    return (
        f"{what} cannot be checked here; load the tokenizer where {they_are} right and save it with save_pretrained, "
        "which writes a tokenizer.json that every environment reads alike"
    )


def _class_name(config: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The class that transformers takes, without its ``Fast``."""
    of_own_code = config.get("auto_map") or model.get("auto_map")
    if isinstance(of_own_code, dict) and "AutoTokenizer" in of_own_code:
        return f"the model's own {of_own_code['AutoTokenizer']}"
    by_model = _CLASS_OF_MODEL.get(str(model.get("model_type")))
    found = config.get("tokenizer_class") or model.get("tokenizer_class") or by_model
    return str(found).removesuffix("Fast") if found else "a class that tokenizer_config.json does not name"


def _ids(path: Path) -> dict[str, int]:
    if path.name == "vocab.json":
        ids = json_or_empty(path)
        if not all(isinstance(id_, int) and not isinstance(id_, bool) for id_ in ids.values()):
            raise UserError(f"{path}: maps no token to an id")
        return ids
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error})") from None
    return {token: id_ for id_, token in enumerate(lines)}


def _refuse_untold_case(vocabulary: PlainVocabulary) -> None:
    """A class lower-cases by default, and published models leave the setting out."""
    ordinary = (token for token in vocabulary.ids if not token.startswith("[") and token != token.lower())
    if "do_lower_case" not in vocabulary.config and (token := next(ordinary, None)) is not None:
        raise UserError(
            f"{vocabulary.path}: has {token!r}, which no lower-cased text becomes, and tokenizer_config.json does not "
            "say do_lower_case; write there what the model was trained with"
        )


def _refuse_other_merges(path: Path) -> None:
    """Software skips the first line and the end of the last one, whatever is there."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: absent, without which vocab.json is no tokenizer; copy it from the model") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error})") from None
    if not text.startswith("#version") or not text.endswith("\n"):
        raise UserError(
            f"{path}: has to begin with a line `#version: 0.2` and to end with a line break: transformers leaves out a "
            "first or last merge that stands there; add what is missing"
        )
