"""Prompts to portions: disjoint, stable under re-ordering, templated once, within the limit."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("transformers")

from nemo_sspo.artifacts.layout import HELD_OUT, PORTION
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.config.stages import Data
from nemo_sspo.errors import UserError
from nemo_sspo.rollout.tokenizer import load_policy_tokenizer
from tests.stages import runs


def write(path: Path, prompts: list[str]) -> str:
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return str(path)


def prepare(root: Path, policy: Path, prompts: str, data: Data, **changes: object) -> Artifact:
    settings = runs.experiment(root, policy=str(policy), prompts=prompts, data=data, **changes)
    return runs.run_stage(settings, "prepare_prompts", 0)


def texts(artifact: Artifact, name: str) -> set[str]:
    return {row["messages"][0]["content"] for row in pq.read_table(artifact.file(name)).to_pylist()}


QUESTIONS = [f"question {n}" for n in range(47)]


def test_portions_and_held_out_are_a_partition(tmp_path: Path, policy: Path) -> None:
    source = write(tmp_path / "p.jsonl", QUESTIONS)
    artifact = prepare(tmp_path, policy, source, Data(held_out_count=10), iterations=3)
    parts = [texts(artifact, HELD_OUT), *(texts(artifact, PORTION.format(iteration=t)) for t in (1, 2, 3))]
    assert [len(part) for part in parts] == [10, 13, 12, 12]
    assert set().union(*parts) == set(QUESTIONS)
    assert artifact.manifest.rows == 47


def test_order_of_the_file_is_of_no_consequence_but_the_seed_is(tmp_path: Path, policy: Path) -> None:
    data = Data(held_out_count=10)
    forward = prepare(tmp_path / "a", policy, write(tmp_path / "a.jsonl", QUESTIONS), data)
    backward = prepare(tmp_path / "b", policy, write(tmp_path / "b.jsonl", QUESTIONS[::-1]), data)
    other = prepare(tmp_path / "c", policy, write(tmp_path / "c.jsonl", QUESTIONS), data, seed=1)
    assert forward.manifest.digest == backward.manifest.digest
    assert texts(forward, HELD_OUT) != texts(other, HELD_OUT)


def test_ids_are_those_of_the_templated_conversation(tmp_path: Path, policy: Path) -> None:
    artifact = prepare(tmp_path, policy, write(tmp_path / "p.jsonl", QUESTIONS), Data(held_out_count=46))
    (row,) = pq.read_table(artifact.file(PORTION.format(iteration=1))).to_pylist()
    tokenizer = load_policy_tokenizer(str(policy))
    text = f"<s><|user|>{row['messages'][0]['content']}<|end|><|assistant|>"
    assert row["prompt_token_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert row["prompt_token_ids"].count(tokenizer.bos_token_id) == 1


def test_held_out_file_is_never_trained_on(tmp_path: Path, policy: Path) -> None:
    held = write(tmp_path / "held.jsonl", [*QUESTIONS[:5], "only held out"])
    data = Data(held_out_prompts=held, prompts_per_iteration=20)
    artifact = prepare(tmp_path, policy, write(tmp_path / "p.jsonl", QUESTIONS), data, iterations=2)
    portions = texts(artifact, "portion_1.parquet") | texts(artifact, "portion_2.parquet")
    assert texts(artifact, HELD_OUT) == {*QUESTIONS[:5], "only held out"}
    assert len(portions) == 40
    assert not portions & set(QUESTIONS[:5])
    assert (artifact.manifest.counts["also_held_out"], artifact.manifest.counts["left_over"]) == (5, 2)


def test_overlong_prompts_stop_the_run_or_are_counted(tmp_path: Path, policy: Path) -> None:
    source = write(tmp_path / "p.jsonl", [*QUESTIONS, "word " * 100])
    with pytest.raises(UserError, match=r"p\.jsonl line 48: \d+ tokens .*over data\.max_prompt_tokens=64"):
        prepare(tmp_path / "a", policy, source, Data(held_out_count=10, max_prompt_tokens=64))
    data = Data(held_out_count=10, max_prompt_tokens=64, overlong_prompts="drop")
    assert prepare(tmp_path / "b", policy, source, data).manifest.counts["dropped_too_long"] == 1


def test_what_the_template_refuses_names_its_line(tmp_path: Path, policy: Path) -> None:
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n" + json.dumps({"messages": messages}))
    with pytest.raises(UserError, match=r"p\.jsonl line 2: the policy's chat template refuses it \(no system role\)"):
        prepare(tmp_path, policy, str(tmp_path / "p.jsonl"), Data(held_out_count=1))


def test_too_few_prompts(tmp_path: Path, policy: Path) -> None:
    source = write(tmp_path / "p.jsonl", QUESTIONS)
    with pytest.raises(UserError, match=r"47 prompts are too few for data\.held_out_count=45 and iterations=3"):
        prepare(tmp_path, policy, source, Data(held_out_count=45), iterations=3)
    short = Data(held_out_count=1, max_prompt_tokens=1, overlong_prompts="drop")
    with pytest.raises(UserError, match=r"0 prompts \(47 are over data\.max_prompt_tokens=1\) are too few"):
        prepare(tmp_path / "dropped", policy, source, short)


def test_policies_that_cannot_be_prompted(tmp_path: Path, policy: Path) -> None:
    source, data = write(tmp_path / "p.jsonl", QUESTIONS), Data(held_out_count=10)
    with pytest.raises(UserError, match=r"policy=.*no such directory"):
        prepare(tmp_path / "a", tmp_path / "absent", source, data)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (bare / name).write_bytes((policy / name).read_bytes())
    with pytest.raises(UserError, match="no chat template"):
        prepare(tmp_path / "b", bare, source, data)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="its tokenizer cannot be loaded"):
        prepare(tmp_path / "c", bare, source, data)
