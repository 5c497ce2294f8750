"""The committed data set: `python -m scripts.toy.dataset` writes it again from its seed."""

import json
import random
from pathlib import Path
from typing import NamedTuple

from scripts.toy.grammar import Request, all_requests, write_answer

DATA = Path(__file__).parent / "data"
DATA_SEED = 20_240
HELD_OUT = 200
SELF_PLAY = 600
SUPERVISED = 1_250
ANSWERS_PER_PROMPT = 2


class Split(NamedTuple):
    """Disjoint requests for the three uses."""

    held_out: list[Request]
    self_play: list[Request]
    supervised: list[Request]


def split_requests() -> Split:
    """The three disjoint sets, in the order in which the files have them."""
    requests = all_requests()
    random.Random(DATA_SEED).shuffle(requests)
    first, second = HELD_OUT, HELD_OUT + SELF_PLAY
    return Split(requests[:first], requests[first:second], requests[second : second + SUPERVISED])


def render() -> dict[str, str]:
    """File name -> the text that `data/` must have."""
    split = split_requests()
    rng = random.Random(DATA_SEED + 1)
    rows = [
        {"prompt": request.text, "response": write_answer(rng, request)}
        for request in split.supervised
        for _ in range(ANSWERS_PER_PROMPT)
    ]
    return {
        "held_out.jsonl": _json_lines({"prompt": request.text} for request in split.held_out),
        "prompts.jsonl": _json_lines({"prompt": request.text} for request in split.self_play),
        "instructions.jsonl": _json_lines(rows),
    }


def read(name: str) -> list[dict[str, str]]:
    """The rows of one committed file."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def _json_lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for name, text in render().items():
        (DATA / name).write_text(text, encoding="utf-8")
