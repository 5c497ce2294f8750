"""Journal of a paid judge's answers: no question is asked or paid for twice.

One file of JSON lines per step, appended to as answers arrive; it holds digests and numbers, never a text or a key. A
step that was killed reads its own file back.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Self

from nemo_sspo.config.oracles import LlmJudgeOracle
from nemo_sspo.errors import UserError

_TOKENS_PER_DOLLAR_UNIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer."""

    logit: float
    unparsed: bool
    input_tokens: int
    output_tokens: int

    @property
    def cost(self) -> "Spending":
        """What it has cost."""
        return Spending(1, self.input_tokens, self.output_tokens)


@dataclass(frozen=True, slots=True)
class Spending:
    """What answers have cost."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def times(self, factor: float) -> "Spending":
        """What `factor` times as many such answers would cost."""
        return Spending(*(round(factor * part) for part in astuple(self)))

    def __sub__(self, other: "Spending") -> "Spending":
        return self + Spending(-other.requests, -other.input_tokens, -other.output_tokens)

    def over(self, settings: LlmJudgeOracle) -> str | None:
        """The first cap that this exceeds, in words."""
        tokens = self.input_tokens + self.output_tokens
        if self.requests > settings.max_requests:
            return f"{self.requests} requests, over oracle.max_requests={settings.max_requests}"
        if settings.max_tokens is not None and tokens > settings.max_tokens:
            return f"{tokens} tokens, over oracle.max_tokens={settings.max_tokens}"
        if settings.max_dollars is not None and self.dollars(settings) > settings.max_dollars:
            return f"${self.dollars(settings):.2f}, over oracle.max_dollars={settings.max_dollars}"
        return None

    def dollars(self, settings: LlmJudgeOracle) -> float:
        """Cost at the configured prices."""
        input_price = settings.dollars_per_million_input_tokens or 0.0
        output_price = settings.dollars_per_million_output_tokens or 0.0
        return (self.input_tokens * input_price + self.output_tokens * output_price) / _TOKENS_PER_DOLLAR_UNIT


class Journal:
    """The answers of a step. Open it with ``with``, as often as there is something to ask; without a path it only
    remembers."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._answers: dict[str, Judgement] = {}
        self.spent = Spending()
        """What this step has paid."""
        self._file: Any = None

    def __enter__(self) -> Self:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
            if not self._answers:
                self._read_back()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Judgement:
        return self._answers[key]

    def append(self, key: str, judgement: Judgement) -> None:
        """Keep an answer. It is handed to the operating system before this returns: a kill does not lose it."""
        if self._file is not None:
            self._file.write(json.dumps({"key": key, **asdict(judgement)}).encode() + b"\n")
            self._file.flush()
        self._add(key, judgement)

    def _add(self, key: str, judgement: Judgement) -> None:
        self._answers[key] = judgement
        self.spent += judgement.cost

    def _read_back(self) -> None:
        """Read what an earlier attempt left; a last line that was cut short is removed."""
        self._file.seek(0)
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            record = _record(self._path, line)
            self._add(record.pop("key"), Judgement(**record))
        self._file.truncate(whole)


def spent_by(path: Path) -> Spending:
    """What the answers of a journal have cost; a last line that was cut short does not count."""
    spent = Spending()
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                record = _record(path, line)
                spent += Spending(1, record["input_tokens"], record["output_tokens"])
    return spent


def question_key(asked: Mapping[str, Any]) -> str:
    """Digest of everything that determines an answer."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


def _record(path: Path | None, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if set(record) != {"key", "logit", "unparsed", "input_tokens", "output_tokens"}:
            raise ValueError("other fields")
    except (ValueError, TypeError):
        raise UserError(f"{path}: a line is not an answer of a judge; delete the file to ask again") from None
    return record
