"""A run that can start: a tiny policy and oracle, prompts, and the interpreter of the tests for both environments."""

import json
import sys
from pathlib import Path

from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.preflight import problems
from tests.launch import tiny_encoder
from tests.launch.tiny_models import write_oracle, write_policy

PAIRRM = ("oracle.path=oracle",)
REST = (
    "policy=policy",
    "prompts=prompts.jsonl",
    "data.held_out_prompts=null",
    "data.held_out_count=5",
    "encoder.path=package:tests.launch.tiny_encoder",
    "train.loggers=[]",
    f"cluster.train.python={sys.executable}",
    f"cluster.rollout.python={sys.executable}",
)
OVERRIDES = (*REST, *PAIRRM)


def write(folder: Path) -> None:
    """The files that the overrides name."""
    write_policy(folder / "policy")
    write_oracle(folder / "oracle")
    tiny_encoder.write(folder / "encoder")
    write_prompts(folder / "prompts.jsonl", 30)


def write_prompts(path: Path, count: int, start: int = 0) -> None:
    lines = [json.dumps({"prompt": f"Question {number}?"}) for number in range(start, start + count)]
    path.write_text("\n".join(lines) + "\n")


def found(*overrides: str, oracle: tuple[str, ...] = PAIRRM) -> list[str]:
    """What the dry run refuses, a line each."""
    result = problems(load_experiment(["experiment=quickstart", *REST, *oracle, *overrides]))
    assert all("\n" not in line for line in result)
    return result


def only(*overrides: str, oracle: tuple[str, ...] = PAIRRM) -> str:
    (problem,) = found(*overrides, oracle=oracle)
    return problem
