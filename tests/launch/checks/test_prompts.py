"""Prompts and given responses that the stages would refuse are refused before they run."""

import json
from pathlib import Path

import pytest

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.checks.prompts import planned_prompts
from nemo_sspo.stages.sampling.prepare_prompts import Prompt, by_hash
from tests.json_edit import edit
from tests.launch.ready_run import PAIRRM, REST, found, only, write_prompts
from tests.launch.tiny_models import write_tokenizer


def write_given(path: Path, changes: dict[int, list[str]] | None = None) -> None:
    """Thirty records with two responses each; `changes` are those of some prompts, by the number of each."""
    texts = {number: ["yes", "no"] for number in range(30)} | (changes or {})
    lines = [json.dumps({"prompt": f"Question {number}?", "responses": given}) for number, given in texts.items()]
    path.write_text("\n".join(lines) + "\n")


def place_in_order(number: int) -> int:
    """Where the split puts a prompt of `write_given`: the first five are held out."""
    messages = [[{"role": "user", "content": f"Question {other}?"}] for other in range(30)]
    ordered = by_hash([Prompt(content_id(each), tuple(each), []) for each in messages], seed=0)
    return [prompt.messages[0]["content"] for prompt in ordered].index(f"Question {number}?")


def test_a_given_response_over_the_limit_is_named_where_it_is_trained_on(place):
    limit = "rollout.max_response_tokens=16"
    trained = next(number for number in range(30) if place_in_order(number) >= 5)
    held_out = next(number for number in range(30) if place_in_order(number) < 5)
    write_given(place / "g.jsonl", {trained: ["x" * 16, "no"], held_out: ["x" * 99, "no"]})
    problem = only("prompts=g.jsonl", "rollout.source=g.jsonl", limit)
    assert problem.startswith(f"g.jsonl line {trained + 1}, response 1: 17 tokens, over {limit}")
    write_given(place / "g.jsonl", {trained: ["x" * 15, "no"]})
    assert found("prompts=g.jsonl", "rollout.source=g.jsonl", limit) == []


def test_a_prompt_without_given_responses_is_named(place):
    write_given(place / "g.jsonl")
    write_prompts(place / "more.jsonl", 60)
    assert "g.jsonl: no responses to prompt" in only("prompts=more.jsonl", "rollout.source=g.jsonl")
    assert found("rollout.source=g.jsonl") == []


def test_a_conversation_that_the_chat_template_refuses(place):
    policy = place / "policy"
    text = json.loads((policy / "tokenizer_config.json").read_text())["chat_template"]
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    edit(policy / "tokenizer_config.json", chat_template=refusing + text)
    assert found() == []
    with (place / "prompts.jsonl").open("a") as file:
        file.write('{"prompt": "And?", "system": "Be brief."}\n')
    assert only() == "prompts.jsonl line 31: the policy's chat template refuses it (no system)"


def test_a_policy_whose_responses_could_not_end(place):
    write_tokenizer(place / "policy")
    assert "its tokenizer has no eos_token" in only()
    edit(place / "policy" / "config.json", eos_token_id=3)
    assert "an ordinary token of the tokenizer" in only()


def test_a_tokenizer_that_the_library_does_not_read(place):
    edit(place / "policy" / "tokenizer.json", pre_tokenizer={"type": "Nothing"})
    assert "tokenizer.json: not a tokenizer of the tokenizers library" in only()


@pytest.mark.parametrize("dim", [24, 33])
def test_heads_that_the_engine_does_not_take(place, dim):
    edit(place / "policy" / "config.json", head_dim=dim)
    assert any(f"heads of {dim} channels" in problem for problem in found())


def test_a_file_for_each_iteration(place):
    write_prompts(place / "a.jsonl", 20)
    write_prompts(place / "b.jsonl", 6, start=20)
    both = ("prompts=[a.jsonl,b.jsonl]", "iterations=2")
    assert found(*both) == []
    assert only(*both, "rollout.shards=7").startswith("rollout.shards=7 is more than the ")
    assert found("prompts=[a.jsonl,b.jsonl]", "iterations=1", "rollout.shards=7") == []
    problem = only(*both, "data.held_out_count=25")
    assert "jsonl: no prompt of it is left for iteration " in problem
    assert problem.endswith("give more prompts or lower data.held_out_count=25")
    write_prompts(place / "b.jsonl", 6, start=19)
    assert only(*both) == (
        "b.jsonl line 1: the same prompt as a.jsonl line 20; remove it, or set data.duplicate_prompts=drop to keep the "
        "first of each"
    )
    assert only("prompts=[a.jsonl,absent.jsonl]", "iterations=2").startswith(
        "absent.jsonl: no such file; check prompts="
    )


def test_held_out_prompts_and_given_responses_are_read_as_prompts_are(place):
    """In any format and by the same names of fields."""
    rows = [{"question": f"Question {number}?", "answers": ["yes", "no"]} for number in range(30)]
    (place / "p.json").write_text(json.dumps(rows))
    (place / "held.csv").write_text("question\nAnother?\n")
    named = ("data.columns.prompt=question", "data.columns.responses=answers")
    given = ("prompts=p.json", "rollout.source=p.json", "data.held_out_prompts=held.csv", "data.held_out_count=1")
    assert found(*given, *named) == []
    assert only(*given, named[1]).startswith("p.json row 1: neither `prompt` nor `messages` among its fields")
    (place / "held.csv").write_text("prompt\nAnother?\n")
    assert only(*given, *named).startswith("held.csv: none of question, ")


def test_how_many_prompts_each_iteration_has(place):
    """What is held out of two files is taken from both; a data set of the hub takes nothing of them here."""
    write_prompts(place / "a.jsonl", 20)
    write_prompts(place / "b.jsonl", 6, start=20)

    def portions(*overrides: str) -> tuple[int, ...]:
        given = ("experiment=quickstart", *REST, *PAIRRM, "iterations=2", *overrides)
        planned = planned_prompts(load_experiment(given))
        assert planned is not None
        return planned.portions

    assert portions() == (13, 12)  # 30 prompts, 5 held out
    assert portions("data.prompts_per_iteration=4") == (4, 4)
    both = "prompts=[a.jsonl,b.jsonl]"
    assert sum(portions(both)) == 21
    assert portions(both, "data.held_out_prompts=owner/name") == (20, 6)
    assert portions(both, "data.held_out_prompts=b.jsonl", "data.held_out_count=2") == (20, 4)
    assert portions("data.held_out_prompts=owner/name") == (15, 15)
    assert portions("data.held_out_count=99") == (0, 0)


def test_prompts_that_are_left_out_for_their_length_are_counted(place):
    """Of thirty questions the ten with a number of one digit have 19 tokens, the others 20."""
    short = ("data.max_prompt_tokens=19", "data.overlong_prompts=drop")
    assert found(*short) == []
    assert planned_prompts(load_experiment(["experiment=quickstart", *REST, *PAIRRM, *short])).portions == (3, 2)
    assert only(*short, "data.held_out_count=9") == (
        "prompts.jsonl: 10 prompts (20 are over data.max_prompt_tokens=19) are too few for data.held_out_count=9 and "
        "iterations=2; give more prompts or lower these"
    )
    assert "rollout.shards=3 is more than the 2 prompts" in only(*short, "rollout.shards=3")
    write_prompts(place / "held.jsonl", 5, start=100)
    assert only(*short, "data.held_out_prompts=held.jsonl") == (
        "data.held_out_prompts=held.jsonl: each of its prompts is too long or spells a control token; give others"
    )
    write_given(place / "g.jsonl")
    with (place / "prompts.jsonl").open("a") as file:
        file.write('{"prompt": "Which?"}\n')
    assert "g.jsonl: no responses to prompt" in only(*short, "rollout.source=g.jsonl", "data.held_out_count=1")
