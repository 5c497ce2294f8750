"""The card of an exported policy: what it says is what was done, and no value breaks its Markdown or YAML."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nemo_sspo.artifacts.knobs import KnobChange
from nemo_sspo.artifacts.manifest import FileRecord, Manifest
from nemo_sspo.artifacts.selection import SelectionResult
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.gates import NoGate
from nemo_sspo.config.load import load_experiment
from nemo_sspo.config.losses import DpoLoss, SppoLoss
from nemo_sspo.config.repulsions import EuclideanRepulsion
from nemo_sspo.config.stages import Selection, Train
from nemo_sspo.stages.runner.registry import STAGES
from nemo_sspo.stages.runner.settings import knob_names, recipe_settings, rounding_knobs, stage_knobs, stage_settings
from nemo_sspo.stages.training.model_card import code, model_card
from tests.report.made_selection import SELECTION
from tests.stages import runs

HOSTILE = "mo`del: \"a\" 'b'\n---\n# pwned <img src=x> ``${seed}`` \\${x} é\u2028| {{ 7 * 7 }}"


def artifact(stage: str, **changes) -> Artifact:
    facts = {
        "iteration": 2,
        "shard": 0,
        "config": {},
        "inputs": {},
        "files": {},
        "rows": 0,
        "counts": {},
        "timings": {"seconds": 1.0},
        "code_version": "0.1.0",
        "created_at": "2026-01-01",
    }
    return Artifact(Path(stage), Manifest(stage=stage, **(facts | changes)))


def made(
    settings: Experiment,
    iteration: int = 2,
    content: dict | None = None,
    selection: SelectionResult | None = None,
    judged: dict | None = None,
    changed: Sequence[KnobChange] = (),
    **train,
) -> str:
    files = {f"portion_{n}.parquet": FileRecord(sha256=str(n) * 64, size=1) for n in (1, 2, 3)}
    counts = {"steps": 20, "loss_first": 40.14263153, "loss_last": 16.544105, "step1_loss": 40.563171, "pairs": 300}
    return model_card(
        settings,
        iteration,
        prompts=artifact(
            "prepare_prompts", files=files, counts={"prompts": 900, "held_out": 200}, config=content or {}
        ),
        pairs=artifact("build_pairs", counts={"pairs": 287} | (judged or {}), software={"vllm": "0.99"}),
        train=artifact("train", counts=counts | train, software={"torch": "2.99"}),
        selection=selection,
        changed=changed,
    )


def front_matter(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def facts(card: str) -> dict[str, str]:
    """What the card's bullets say, as a Markdown reader sees it: name to the code span behind it."""
    found = {}
    for token in MarkdownIt().parse(card.split("\n---\n", 1)[1]):
        children = token.children or []
        if token.type == "inline" and len(children) == 2 and children[1].type == "code_inline":
            assert children[0].content.endswith(": ")
            found[children[0].content[:-2]] = children[1].content
    return found


def test_what_it_says_is_what_was_done(tmp_path: Path) -> None:
    settings = runs.experiment(
        tmp_path,
        iterations=3,
        policy="org/base",
        loss=SppoLoss(eta=30.0),
        repulsion=EuclideanRepulsion(weight=0.5),
        train=Train(learning_rate=1e-3, peft="lora"),
    )
    card = made(settings, step1_closed_form=40.563175)
    stated = facts(card)
    expected = {
        "loss": "kind: sppo, eta: 30.0, scale: eta",
        "gate": "kind: linear, form: pair",
        "iterations": "3",
        "prompts": "prompts.jsonl",
        "highest learning rate": "0.001",
        "prompts of all iterations": "900",
        "held-out prompts": "200",
        "SHA-256 of portion_1.parquet, iteration 1": "1" * 64,
        "SHA-256 of portion_2.parquet, iteration 2": "2" * 64,
        "pairs of iteration 2": "287",
        "optimizer steps": "20",
        "loss of the first step": "40.1426",
        "loss of the last step": "16.5441",
        "preference loss at step 1": "40.5632",
        "the same in closed form, every log-ratio 0": "40.5632",
        "torch (training)": "2.99",
        "vllm (rollout)": "0.99",
    }
    assert {name: stated.get(name) for name in expected} == expected
    for section, settings_stated in {
        "repulsion": ("weight: 0.5", "schedule: constant", "pooling: last"),
        "rollout": ("samples_per_prompt: 5", "temperature: 1.0"),
        "pairs": ("symmetrize: half", "estimator: pairwise", "unfinished: keep", "max_tokens: null"),
        "encoder": ("long_text: chunk_mean",),
        "train": (
            *("learning_rate: 0.001", "schedule_epochs: null", "warmup_fraction: 0.1", "peft: lora", "lora_rank: 32"),
            *("adam_beta1: 0.9", "adam_beta2: 0.95", "sgd_momentum: 0.9", "clip_grad: 1.0", "weight_decay: 0.0"),
        ),
    }.items():
        assert set(settings_stated) <= set(stated[section].split(", "))
    assert not any("portion_3" in name for name in stated)  # later prompts have not been seen
    assert front_matter(card) == {
        "base_model": "org/base",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["nemo-sspo", "self-play", "preference-optimization", "sppo", "s-sppo"],
    }
    assert "closed form" not in made(settings)  # no identity holds against the first policy's log-probs


def test_without_gate_and_repulsion_it_is_no_s_sppo(tmp_path: Path) -> None:
    plain = runs.experiment(tmp_path, gate=NoGate(), repulsion=EuclideanRepulsion(weight=0.0), loss=DpoLoss())
    card = made(plain)
    assert front_matter(card)["tags"][-1] == "dpo"
    assert "weight: 0.0" in facts(card)["repulsion"]
    assert facts(card)["gate"].startswith("kind: none")


def test_no_value_breaks_out(tmp_path: Path) -> None:
    settings = runs.experiment(tmp_path, policy=HOSTILE, prompts=HOSTILE)
    card = made(settings)
    assert front_matter(card)["base_model"] == HOSTILE
    assert facts(card)["prompts"] == HOSTILE.replace("\n", "\\n").replace("\u2028", "\\u2028")
    tokens = MarkdownIt().parse(card.split("\n---\n", 1)[1])
    assert sum(token.type == "heading_open" for token in tokens) == 7
    assert not any(token.type in ("html_block", "hr") for token in tokens)


@given(st.text(min_size=1))
def test_a_code_span_shows_any_text_alone(text: str) -> None:
    shown = MarkdownIt().parseInline(f"- name: {code(text)}")[0].children
    assert [token.type for token in shown] == ["text", "code_inline"]
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    assert shown[1].content == escaped or not escaped.strip(" ")


@pytest.mark.parametrize("policy", ["org/base", HOSTILE])
def test_its_settings_repeat_the_run(tmp_path: Path, policy: str) -> None:
    settings = runs.experiment(tmp_path, policy=policy, loss=DpoLoss(beta=0.3), train=Train(peft="lora"), seed=7)
    card = made(settings)
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "repeat.yaml").write_text(block, encoding="utf-8")
    repeated = load_experiment(["experiment=repeat", "name=repeat", "cluster=local_gpu"], tmp_path)
    assert recipe_settings(repeated) == recipe_settings(settings)


def test_it_tells_what_was_changed_in_the_run(tmp_path: Path) -> None:
    changed = [KnobChange(2, "train.pack_tokens", 8192, 4096, True, ["reference_logps", "train"])]
    assert "were changed in it" not in made(runs.experiment(tmp_path))
    card = made(runs.experiment(tmp_path), changed=changed)
    line = "train.pack_tokens: 8192 -> 4096 from iteration 2 (reference_logps, train) on (changes rounding)"
    assert f"These settings fit the run to its machine, and were changed in it:\n\n- `{line}`\n" in card


def test_it_tells_how_the_checkpoint_was_chosen(tmp_path: Path) -> None:
    assert "Choice of the checkpoint" not in made(runs.experiment(tmp_path))
    stated = facts(made(runs.experiment(tmp_path), selection=SELECTION))
    assert stated["candidate after step 10"] == "win rate 0.600 [0.550, 0.650], at equal length 0.580 [0.530, 0.630]"
    assert (stated["chosen"], stated["reason"]) == ("step 10", SELECTION.reason)
    assert stated["prompts to choose by, held out from training and evaluation"] == "200"
    assert stated["the run ended here"] == SELECTION.stop


@pytest.mark.parametrize("selects", [False, True])
def test_every_setting_that_made_the_policy_is_told(tmp_path: Path, selects: bool) -> None:
    settings = runs.experiment(tmp_path, selection=Selection(early_stop=selects))
    later = ("evaluate", "diagnose", "score_labelled", "rollout_held_out", *(() if selects else ("select_model",)))
    made_by = [stage for stage in STAGES if stage not in later]
    made_of = {key for stage in made_by for key in stage_settings(settings, stage) | stage_knobs(settings, stage)}
    without_effect = knob_names(settings) - rounding_knobs(settings)
    stated = {key for key in made_of - without_effect if not key.startswith("content of ")}
    assert stated == recipe_settings(settings).keys()


class PlantedTrain(Train):
    planted: float = 0.125


class PlantedExperiment(Experiment):
    train: PlantedTrain = PlantedTrain()


def test_a_setting_that_is_new_is_told_without_anybody_thinking_of_it(tmp_path: Path) -> None:
    planted = PlantedExperiment(**runs.experiment(tmp_path).model_dump())
    card = made(planted)
    assert "planted: 0.125" in facts(card)["train"].split(", ")
    assert "  planted: 0.125\n" in card.split("```yaml")[1]
    assert "planted" not in made(runs.experiment(tmp_path))


def test_every_section_changes_the_result_or_is_known_not_to(tmp_path: Path) -> None:
    """A choice of checkpoints is told where there is one; an evaluation comes after the policy."""
    without_effect = {"name", "runs_dir", "cluster", "evaluation"}
    settings = recipe_settings(runs.experiment(tmp_path, selection=Selection(candidates=2)))
    assert {key.split(".")[0] for key in settings if not key.startswith("evaluation.")} == (
        Experiment.model_fields.keys() - without_effect
    )


def test_what_oracle_and_encoder_were_is_told_by_their_fingerprints(tmp_path: Path) -> None:
    stated = facts(made(runs.experiment(tmp_path), judged={"content of oracle.path": "a" * 32, "pairs": 287}))
    assert stated["content of oracle.path"] == "a" * 32


def test_a_rate_that_never_reached_its_peak_is_told(tmp_path: Path) -> None:
    """20 steps of 360 that are scheduled, 36 of them the warm-up: the last has 20/37 of the peak."""
    settings = runs.experiment(tmp_path, train=Train(learning_rate=5e-7, schedule_epochs=18))
    assert facts(made(settings))["highest learning rate"] == "2.7027e-07"


def test_equal_runs_have_equal_cards_wherever_they_lie(tmp_path: Path) -> None:
    here, there = runs.experiment(tmp_path / "a"), runs.experiment(tmp_path / "b", name="other")
    assert made(here) == made(there)
    assert str(tmp_path) not in made(here)
    assert made(here) != made(runs.experiment(tmp_path, seed=1))
    contents = {f"content of {name}": "0" * 32 for name in ("policy", "prompts", "data.held_out_prompts")}
    other_order = dict(reversed(contents.items()))  # they come from a set
    assert made(here, content=contents) == made(here, content=other_order) != made(here)


def test_sampling_is_told_where_the_base_says_nothing(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    from nemo_sspo.config.stages import Rollout
    from nemo_sspo.stages.training.generation_config import write_generation_config
    from tests.rollout.tiny_policy import make_policy

    policy = make_policy(tmp_path / "policy")
    end = AutoTokenizer.from_pretrained(policy).eos_token_id
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        if (policy / name).exists():
            (tmp_path / name).write_bytes((policy / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": [end, end + 1]}))
    write_generation_config(tmp_path, Rollout(temperature=0.7, top_p=0.9))
    written = GenerationConfig.from_pretrained(tmp_path)
    assert (written.temperature, written.top_p, written.do_sample) == (0.7, 0.9, True)
    assert written.eos_token_id == [end, end + 1, 5]  # <|end|>, which the template puts behind an answer

    (tmp_path / "generation_config.json").write_text('{"temperature": 0.1}')
    write_generation_config(tmp_path, Rollout())
    assert (tmp_path / "generation_config.json").read_text() == '{"temperature": 0.1}'


def test_where_a_response_ends_is_read_without_a_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that exports may not be able to load one: a SentencePiece file alone asks for its protobuf."""
    pytest.importorskip("sentencepiece")
    import transformers

    from nemo_sspo.config.stages import Rollout
    from nemo_sspo.stages.training.generation_config import write_generation_config
    from tests.tokens.spm import make_mistral

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", None)
    write_generation_config(make_mistral(tmp_path / "policy"), Rollout())
    assert json.loads((tmp_path / "policy" / "generation_config.json").read_text())["eos_token_id"] == [2]
