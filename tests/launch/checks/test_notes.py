"""What a run does without, and its user may not know of, is told before it starts."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_sspo import cli
from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.checks.notes import notes
from tests.json_edit import edit
from tests.launch.tiny_models import write_policy


@pytest.mark.parametrize("loss", ["dpo", "ipo", "kto_pair", "sppo_hard"])
def test_a_gate_that_the_loss_does_not_read_is_told(loss: str) -> None:
    (note,) = notes(load_experiment(["experiment=quickstart", f"loss={loss}", "gate=linear"]))
    assert note.startswith(f"loss={loss} does not read win-rate targets: gate=linear has no effect on what is trained")
    assert notes(load_experiment(["experiment=quickstart", f"loss={loss}", "gate=none"])) == []


@pytest.mark.parametrize("loss", ["sppo", "sppo_single"])
def test_a_gate_that_the_loss_reads_is_not(loss: str) -> None:
    assert notes(load_experiment(["experiment=quickstart", f"loss={loss}", "gate=power"])) == []


@pytest.mark.parametrize("form", ["mean_overlap", "pairwise"])
def test_a_gates_form_that_the_loss_does_not_read_is_told(form: str) -> None:
    quick = ["experiment=quickstart", f"gate.form={form}"]
    (note,) = notes(load_experiment([*quick, "loss=sppo_single"]))
    assert f"gate.form={form} has no effect on what is trained" in note
    assert notes(load_experiment([*quick, "loss=sppo"])) == []


def test_on_a_cluster_a_training_that_saves_no_state_is_told() -> None:
    quick = ["experiment=quickstart", "cluster=slurm_cpu"]
    (note,) = notes(load_experiment(quick))
    assert note.startswith("train.checkpoint_every_steps is not set: a lost node or a crash starts")
    assert notes(load_experiment([*quick, "train.checkpoint_every_steps=5"])) == []
    assert notes(load_experiment(quick[:1])) == []


@pytest.mark.parametrize("cluster", ["slurm_pyxis", "slurm_modules"])
@pytest.mark.parametrize("name", ["llama3-8b", "llama3-70b", "mistral-7b", "llama3-8b-paper", "mistral-7b-paper"])
def test_the_presets_and_sites_outlive_a_lost_node_and_hold_the_policy_in_memory(name: str, cluster: str) -> None:
    experiment = load_experiment([f"experiment={name}", f"cluster={cluster}", "prompts=p.jsonl"])
    (note,) = notes(experiment)  # the papers' schedule
    assert note.startswith("train.schedule_epochs=18, train.train_epochs=1: training ends in the warm-up")
    assert experiment.cluster.resources_of("train").memory == "0"


def test_a_rate_that_never_reaches_its_peak_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("".join(f'{{"prompt": "{number}"}}\n' for number in range(20_200)))
    given = ["experiment=llama3-8b", f"prompts={tmp_path / 'p.jsonl'}", "iterations=1", "data.held_out_count=200"]
    (note,) = notes(load_experiment(given))
    assert note == (
        "train.schedule_epochs=18, train.train_epochs=1: training ends in the warm-up (train.warmup_fraction=0.1 of "
        "what is scheduled), so the learning rate rises to 2.8e-07 and never reaches train.learning_rate=5e-07"
    )
    assert notes(load_experiment([*given, "train.schedule_epochs=9"])) == []
    assert notes(load_experiment([*given, "train.warmup_fraction=0.05"])) == []
    (note,) = notes(load_experiment([*given, "train.schedule_epochs=null", "train.global_batch_size=20000"]))
    assert "rises to 2.5e-07 and never reaches" in note  # one step, which is the warm-up


def test_sgd_says_its_momentum() -> None:
    quick = ["experiment=quickstart", "train.optimizer=sgd"]
    (note,) = notes(load_experiment([*quick, "train.sgd_momentum=0.5"]))
    assert note.startswith("train.optimizer=sgd: its momentum is train.sgd_momentum=0.5;")


def test_it_is_printed_and_changes_no_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with_gate, without = (
        (cli.main(["run", "experiment=quickstart", "loss=dpo", f"gate={gate}", "--dry-run"]), capsys.readouterr().err)
        for gate in ("linear", "none")
    )
    assert with_gate[0] == without[0]
    assert "note: loss=dpo does not read win-rate targets: gate=linear has no effect" in with_gate[1]
    assert "note:" not in without[1]


def test_cores_that_are_left_to_slurm_are_told_where_gpus_want_them() -> None:
    site = ["experiment=llama3-8b", "cluster=slurm_modules", "prompts=p.jsonl", "train.schedule_epochs=null"]
    assert notes(load_experiment(site)) == []
    (note,) = notes(load_experiment([*site, "cluster.cpus_per_task=null"]))
    assert note.startswith("cluster.cpus_per_task is not set for rollout, score, train: ")
    assert (
        notes(load_experiment(["experiment=quickstart", "cluster=slurm_cpu", "train.checkpoint_every_steps=5"])) == []
    )


def test_rows_without_tokens_and_a_template_without_an_end(tmp_path):
    policy = write_policy(tmp_path / "policy")  # 257 tokens
    edit(policy / "tokenizer_config.json", chat_template="{% for m in messages %}{{ m.content }}\n{% endfor %}")
    rows = json.loads((policy / "config.json").read_text()) | {"vocab_size": 300}
    (policy / "config.json").write_text(json.dumps(rows))
    found = notes(load_experiment(["experiment=quickstart", f"policy={policy}"]))
    assert any("43 of its 300 rows have no token in the tokenizer beside it" in note for note in found)
    assert any("its chat template puts no token behind an answer" in note for note in found)
    config = json.loads((policy / "config.json").read_text()) | {"vocab_size": 260}
    (policy / "config.json").write_text(json.dumps(config))
    assert not any(
        "rows have no token" in note for note in notes(load_experiment(["experiment=quickstart", f"policy={policy}"]))
    )


def test_what_an_encoder_does_by_default_is_told(tmp_path: Path) -> None:
    files = {
        "config": {"model_type": "bert"},
        "modules": [{"type": "sentence_transformers.models.Transformer"}],
        "config_sentence_transformers": {"prompts": {"sts": "compare: "}, "default_prompt_name": "sts"},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    quick = ["experiment=quickstart", f"encoder.path={tmp_path}"]
    (note,) = notes(load_experiment(quick))
    assert "puts its default prompt 'compare: ' before every text; encoder.prefix='' is none" in note
    assert notes(load_experiment([*quick, "encoder.prefix=''"])) == []
    assert notes(load_experiment([*quick, "encoder.prompt_name=sts"])) == []
    (tmp_path / "config_sentence_transformers.json").unlink()
    assert notes(load_experiment(quick)) == []
    (tmp_path / "modules.json").unlink()
    (note,) = notes(load_experiment(quick))
    assert "has no modules.json, so sentence-transformers chooses the pooling" in note


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_fields_beside_the_prompt_that_are_not_read_are_named(tmp_path: Path, suffix: str) -> None:
    records = [{"prompt": f"{number} plus one?", "context": "Answer in French.", "answer": None} for number in range(9)]
    source = tmp_path / f"prompts{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([{**record, "answer": ""} for record in records]), source)
    else:
        source.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = [
        note for note in notes(load_experiment(["experiment=quickstart", f"prompts={source}"])) if "fields" in note
    ]
    named = "context, answer" if suffix == ".parquet" else "context"
    assert found == [f"prompts={source}: fields that are not read: {named}"]


def test_fields_that_are_not_read_are_told_by_the_files_own_names(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("question,topic,prompt\na,b,c\n")
    given = ["experiment=quickstart", "policy=own", f"prompts={tmp_path / 'p.csv'}"]
    (note,) = notes(load_experiment([*given, "data.columns.prompt=question"]))
    assert note == f"prompts={tmp_path / 'p.csv'}: fields that are not read: topic, prompt"
    (note,) = notes(load_experiment(given))
    assert note.endswith("fields that are not read: question, topic")


def test_the_toys_models_beside_other_prompts_are_told() -> None:
    own = ["experiment=quickstart", "prompts=mine.jsonl"]
    (note,) = notes(load_experiment(own))
    assert note.startswith("policy=assets/toy/policy: made for the quickstart's own prompts")
    judged = notes(load_experiment([*own, "oracle.path=assets/toy/pairrm"]))
    assert [line.partition("=")[0] for line in judged] == ["policy", "oracle.path"]
    assert notes(load_experiment([*own, "policy=own"])) == notes(load_experiment(own[:1])) == []


def test_a_pair_that_may_not_fit_a_packed_row_is_told() -> None:
    """Of 512 tokens of a prompt and 64 of each response: 2 x 576 packed, 512 + 1 + 2 x 64 with a shared prompt."""
    packed = ["experiment=quickstart", "train.packing=true", "data.max_prompt_tokens=512"]
    packed += ["rollout.max_response_tokens=64"]
    (note,) = notes(load_experiment([*packed, "train.pack_tokens=1151"]))
    assert note.startswith("train.pack_tokens=1151: a pair may take 1152 tokens of a packed row")
    assert notes(load_experiment([*packed, "train.pack_tokens=1152"])) == []
    shared = [*packed, "train.share_prompt=true"]
    assert "a pair may take 641 tokens" in notes(load_experiment([*shared, "train.pack_tokens=640"]))[0]
    assert notes(load_experiment([*shared, "train.pack_tokens=641"])) == []
    # 100 tokens of prompt and one response: those of both responses, and of the prompt once or twice
    assert notes(load_experiment([*packed, "train.pack_tokens=200", "pairs.max_tokens=100"])) == []
    assert notes(load_experiment([*packed, "train.pack_tokens=199", "pairs.max_tokens=100"])) != []
    assert notes(load_experiment([*shared, "train.pack_tokens=165", "pairs.max_tokens=100"])) == []
    assert notes(load_experiment([*shared, "train.pack_tokens=164", "pairs.max_tokens=100"])) != []
    assert notes(load_experiment([*packed[:1], "train.pack_tokens=9"])) == []
