"""The rollout stage around an engine: which prompts a shard takes, and what becomes of the completions."""

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("transformers")

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.artifacts.layout import HF_MODEL, TOKENS, RunLayout
from nemo_sspo.artifacts.store import open_artifact, publish
from nemo_sspo.artifacts.tables import ROLLOUTS, SELECTION_PROMPTS, portion_prompts
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Rollout, Selection
from nemo_sspo.errors import UserError
from nemo_sspo.rollout import vllm_engine
from nemo_sspo.rollout.protocol import Completion, OnProgress, Sampling
from nemo_sspo.rollout.tokenizer import load_policy_tokenizer, token_record
from nemo_sspo.stages import __main__ as stages_main
from nemo_sspo.stages.__main__ import main
from nemo_sspo.stages.pairs.join import read_spelled
from nemo_sspo.stages.runner.settings import stage_settings
from nemo_sspo.stages.sampling.rollout_table import conversation_text
from tests.stages import runs

END = 5


class EchoEngine:
    """Answers a prompt with its own last text token: once stopped, once cut, then repeated."""

    begun: ClassVar[list[tuple[int, int]]] = []
    """Of every `begin`, which engine it was and the seed."""

    def __init__(
        self, policy: str, settings: object, *, seed: int, max_model_len: int, stop_token_ids: list[int]
    ) -> None:
        self.limit = max_model_len
        assert stop_token_ids == [2, END]

    def begin(self, seed: int) -> None:
        self.begun.append((id(self), seed))

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_progress: OnProgress
    ) -> list[list[Completion]]:
        assert self.limit >= max(map(len, prompts)) + sampling.max_tokens
        on_progress(len(prompts))
        return [
            [
                Completion([prompt[-3], END], [-0.5, -0.25], "stop"),
                Completion([prompt[-3]] * 3, [-1.0] * 3, "length"),
                *(Completion([END], [-2.0], "stop") for _ in range(sampling.samples - 2)),
            ]
            for prompt in prompts
        ]


def made_with(settings: Experiment, stage: str = "prepare_prompts") -> dict[str, Any]:
    """The settings in the manifest of an artifact that is up to date."""
    return stage_settings(settings, stage)


def settings_with_prompts(root: Path, policy: Path, count: int, **rollout: int) -> Experiment:
    settings = runs.experiment(root, policy=str(policy), rollout=Rollout(max_response_tokens=3, **rollout))
    tokenizer = load_policy_tokenizer(str(policy))
    rows = []
    for number in range(count):
        messages = [{"role": "user", "content": f"question {chr(65 + number)}"}]
        token_ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        rows.append({"prompt_id": content_id(messages), "messages": messages, "prompt_token_ids": token_ids})
    final = RunLayout(settings.run_dir).artifact("prepare_prompts")
    final.parent.mkdir(parents=True)
    with publish(final, stage="prepare_prompts", config=made_with(settings), inputs={}) as draft:
        (draft.path / TOKENS).write_text(token_record(tokenizer, {}, []).model_dump_json())
        portion_prompts(1).write(draft.path, rows)
    return settings


def test_rows_and_counts(tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "VllmEngine", EchoEngine)
    settings = settings_with_prompts(tmp_path, policy, 3, samples_per_prompt=4)
    artifact = runs.run_stage(settings, "rollout")
    rows = ROLLOUTS.read(artifact.path).to_pylist()
    assert [row["prompt_id"] for row in rows] == sorted(row["prompt_id"] for row in rows)
    for row in rows:
        stopped, cut, empty, again = row["responses"]
        letter = row["prompt"][-1]
        assert (stopped["text"], stopped["token_ids"][-1], stopped["finish_reason"]) == (letter, END, "stop")
        assert (cut["text"], cut["finish_reason"]) == (letter * 3, "length")
        assert (empty["text"], empty["token_ids"], empty["logprobs"]) == ("", [END], [-2.0])
        assert empty["response_id"] == again["response_id"] == content_id(row["prompt_id"], [END])
        assert len({response["response_id"] for response in row["responses"]}) == 3
    assert len({row["responses"][2]["response_id"] for row in rows}) == 3, "an id is of a prompt and a response"
    assert artifact.manifest.counts == {
        "prompts": 3,
        "responses": 12,
        "tokens": 21,
        "mean_tokens": 21 / 12,
        "unfinished": 3,
        "empty": 6,
        "duplicates": 3,
        "control_tokens": 0,
        "control_ids": 0,
        "ids_without_token": 0,
    }


def test_what_tokens_and_texts_do_not_agree_in_is_recorded(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A response that spells <|user|> in ordinary tokens, and an id that the tokenizer has no token for."""
    tokenizer = load_policy_tokenizer(str(policy))
    forged = [id_ for character in "<|user|>" for id_ in tokenizer(character, add_special_tokens=False)["input_ids"]]

    class Engine(EchoEngine):
        def generate(self, prompts: Sequence[Sequence[int]], *_: object) -> list[list[Completion]]:
            plain = [[forged[0], 3, END], [forged[1], 999, END]]
            return [[Completion(ids, [-1.0] * len(ids), "stop") for ids in ([*forged, END], *plain)] for _ in prompts]

    monkeypatch.setattr(vllm_engine, "VllmEngine", Engine)
    artifact = runs.run_stage(settings_with_prompts(tmp_path, policy, 2, samples_per_prompt=3), "rollout")
    counts = artifact.manifest.counts
    assert (counts["control_tokens"], counts["control_ids"], counts["ids_without_token"]) == (2, 2, 1)
    assert "1 sampled token ids are no tokens of the tokenizer" in capsys.readouterr().out
    rows = ROLLOUTS.read(artifact.path).to_pylist()
    assert read_spelled(artifact) == {row["responses"][0]["response_id"] for row in rows}


@pytest.mark.parametrize("broken", [float("nan"), float("-inf")])
def test_a_log_prob_that_is_not_finite_names_its_prompt(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch, broken: float
) -> None:
    asked = []

    class Engine(EchoEngine):
        def generate(self, prompts: Sequence[Sequence[int]], *rest: object) -> list[list[Completion]]:
            completions = super().generate(prompts, *rest)
            completions[1][0] = Completion(completions[1][0].token_ids, [-0.5, broken], "stop")
            asked.append(prompts[1])
            return completions

    monkeypatch.setattr(vllm_engine, "VllmEngine", Engine)
    settings = settings_with_prompts(tmp_path, policy, 3)
    with pytest.raises(UserError, match="a log-prob of a response is not finite") as refusal:
        runs.run_stage(settings, "rollout")
    layout = RunLayout(settings.run_dir)
    portion = portion_prompts(1).read(layout.artifact("prepare_prompts")).to_pylist()
    (named,) = (row["prompt_id"] for row in portion if row["prompt_token_ids"] == asked[0])
    assert str(refusal.value).startswith(f"prompt {named}:")
    assert not layout.artifact("rollout", 1, 0).exists()


def test_shards_are_a_partition(tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "VllmEngine", EchoEngine)
    settings = settings_with_prompts(tmp_path, policy, 8, shards=3)
    shards = [
        ROLLOUTS.read(runs.run_stage(settings, "rollout", shard=shard).path)["prompt"].to_pylist() for shard in range(3)
    ]
    assert [len(shard) for shard in shards] == [2, 3, 3]
    assert sorted(itertools.chain(*shards)) == [f"question {letter}" for letter in "ABCDEFGH"]


def test_a_candidate_answers_all_selection_prompts(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shard 1 is the second candidate, not the second half of the prompts; its own weights answer."""
    asked = []

    class Engine(EchoEngine):
        def __init__(self, policy: str, settings: object, **more: object) -> None:
            asked.append(policy)
            super().__init__(policy, settings, **more)

    monkeypatch.setattr(vllm_engine, "VllmEngine", Engine)
    settings = settings_with_prompts(tmp_path, policy, 3, held_out_samples_per_prompt=2, shards=3)
    settings = settings.model_copy(update={"selection": Selection(candidates=2)})
    layout = RunLayout(settings.run_dir)
    prompts = layout.artifact("prepare_prompts")
    shutil.move(prompts / portion_prompts(1).file, tmp_path / "kept")
    shutil.move(prompts / TOKENS, tmp_path / TOKENS)
    shutil.rmtree(prompts)
    with publish(prompts, stage="prepare_prompts", config=made_with(settings), inputs={}) as draft:
        shutil.move(tmp_path / TOKENS, draft.path / TOKENS)
        shutil.move(tmp_path / "kept", draft.path / SELECTION_PROMPTS.file)
    exported = layout.artifact("export_candidate", 1, 1)
    exported.parent.mkdir(parents=True)
    config = made_with(settings, "export_candidate")
    with publish(exported, stage="export_candidate", iteration=1, shard=1, config=config, inputs={}) as draft:
        shutil.copytree(policy, draft.path / HF_MODEL)
    for iteration, shard in ((0, 0), (1, 1)):
        artifact = runs.run_stage(settings, "rollout_selection", iteration, shard)
        assert (artifact.manifest.counts["prompts"], artifact.manifest.counts["responses"]) == (3, 6)
    assert asked == [str(policy), str(exported / HF_MODEL)]
    # Taken by one process all the same, each loads its own.
    shutil.rmtree(layout.artifact("rollout_selection", 1, 1))
    shutil.copytree(exported, exported.with_name("shard_00000"))
    # What the exports were made of is not here.
    monkeypatch.setattr(stages_main, "refuse_stale_inputs", lambda *_: None)
    assert main(["rollout_selection", "--run", str(layout.root), "--iteration", "1", "--shard", "0-1"]) == 0
    assert asked[2:] == [str(exported.with_name("shard_00000") / HF_MODEL), str(exported / HF_MODEL)]


def test_shards_of_one_process_share_an_engine_and_are_what_they_are_alone(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One engine, which begins each shard with that shard's seed; a published shard of the lane is left as it is."""
    monkeypatch.setattr(vllm_engine, "VllmEngine", EchoEngine)
    monkeypatch.setattr(EchoEngine, "begun", [])
    alone, together = (settings_with_prompts(tmp_path / name, policy, 8, shards=4) for name in ("alone", "together"))
    expected = [runs.run_stage(alone, "rollout", shard=shard) for shard in range(4)]
    seeds = [seed for _, seed in EchoEngine.begun]
    assert len(set(seeds)) == 4
    EchoEngine.begun.clear()
    runs.run_stage(together, "rollout", shard=1)
    layout = RunLayout(together.run_dir)
    layout.log("iter_1.rollout.00000", "5").parent.mkdir()
    layout.log("iter_1.rollout.00000", "5").write_text("of the process")
    command = ["rollout", "--run", str(layout.root), "--iteration", "1", "--shard", "0-1,3", "--attempt", "5"]
    assert main(command) == 0
    _, *lane = EchoEngine.begun
    assert len({engine for engine, _ in lane}) == 1
    assert [seed for _, seed in lane] == [seeds[0], seeds[3]]
    made = [open_artifact(layout.artifact("rollout", 1, shard)) for shard in (0, 1, 3)]
    assert [artifact.manifest.digest for artifact in made] == [expected[n].manifest.digest for n in (0, 1, 3)]
    assert ["loading_seconds" in artifact.manifest.timings for artifact in made] == [True, True, False]
    assert capsys.readouterr().out.splitlines() == [f"begin iter_1.rollout.{shard:05d}" for shard in (0, 1, 3)]
    assert layout.log("iter_1.rollout.00003", "5").read_text() == "of the process"


def test_more_shards_than_prompts(tmp_path: Path, policy: Path) -> None:
    settings = settings_with_prompts(tmp_path, policy, 2, shards=3)
    with pytest.raises(UserError, match=r"rollout\.shards=3 is more than the 2 prompts of portion_1\.parquet"):
        runs.run_stage(settings, "rollout", shard=0)


def test_the_oracle_sees_who_said_what() -> None:
    user, other = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
    assert conversation_text([user]) == "Hi"
    assert conversation_text([user, other, user]) == "User: Hi\n\nAssistant: Ho\n\nUser: Hi"


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ("template", "its tokenizer's chat template is not the one that made the token ids"),
        ("vocabulary", "its tokenizer's vocabulary is not the one that made the token ids"),
        ("rules", "its tokenizer gives other tokens here than where .* was made: 'How do I .* its files have changed"),
        ("token ids", "its tokenizer has 289 tokens, the model 288 rows: town = 288 has no embedding"),
    ],
)
def test_a_policy_with_another_tokenizer_is_refused(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch, difference: str, message: str
) -> None:
    """The prompts were tokenized once; ids mean nothing to a model that numbers or frames them otherwise."""
    other = tmp_path / "other"
    shutil.copytree(policy, other)
    tokenizer = load_policy_tokenizer(str(policy))
    if difference == "template":
        tokenizer.chat_template += " "
    elif difference == "token ids":
        tokenizer.add_tokens(["town"])
    tokenizer.save_pretrained(other)
    content = json.loads((other / "tokenizer.json").read_text())
    if difference == "vocabulary":
        for token in content["added_tokens"]:  # tokens that no probe has: the two roles change places
            token["id"] = {3: 4, 4: 3}.get(token["id"], token["id"])
            content["model"]["vocab"][token["content"]] = token["id"]
        content["added_tokens"].sort(key=lambda token: token["id"])
    if difference == "rules":
        content["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(content))
    settings = settings_with_prompts(tmp_path, policy, 3)
    monkeypatch.setattr(vllm_engine, "VllmEngine", EchoEngine)
    with pytest.raises(UserError, match=message):
        runs.run_stage(settings.model_copy(update={"policy": str(other)}), "rollout")
