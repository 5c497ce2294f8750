"""Overrides become a validated experiment; every mistake becomes one line that says what to do."""

from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemo_sspo.config.describe import kinds_of_keys
from nemo_sspo.config.load import WHOLE_TREE, compose_settings, config_root, load_experiment
from nemo_sspo.config.mistakes import NAMES_ELSEWHERE
from nemo_sspo.errors import UserError

QUICK = "experiment=quickstart"


def message_of(*overrides, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_experiment(overrides, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_quickstart_is_what_the_readme_says():
    experiment = load_experiment([QUICK])
    assert (experiment.iterations, experiment.loss.eta, experiment.train.learning_rate) == (2, 30.0, 5e-4)
    assert (experiment.parallel.tensor, experiment.parallel.pipeline, experiment.parallel.world_size) == (2, 2, 4)
    assert (experiment.train.global_batch_size, experiment.train.train_epochs) == (32, 2)
    assert (experiment.rollout.samples_per_prompt, experiment.rollout.max_response_tokens) == (5, 64)
    assert (experiment.precision.kind, experiment.cluster.launcher, experiment.cluster.gpus) == ("fp32", "fork", 0)


def test_prompts_of_ones_own_are_neither_evaluated_on_the_toys_nor_judged_by_its_judge():
    toys, own = load_experiment([QUICK]), load_experiment([QUICK, "prompts=mine.jsonl"])
    assert toys.data.held_out_prompts == "scripts/toy/data/held_out.jsonl"
    assert (toys.oracle.path, toys.cluster.rollout.variables["HF_HUB_OFFLINE"]) == ("assets/toy/pairrm", "1")
    assert own.data.held_out_prompts is None
    assert (own.oracle.path, own.cluster.rollout.variables["HF_HUB_OFFLINE"]) == ("llm-blender/PairRM", "0")
    given = load_experiment([QUICK, "prompts=[a.jsonl,b.jsonl]", "data.held_out_prompts=h.jsonl", "oracle.path=o"])
    assert (given.data.held_out_prompts, given.oracle.path) == ("h.jsonl", "o")
    on_gpu = load_experiment(["experiment=quickstart-gpu", "prompts=mine.jsonl", "loss=dpo"])
    assert (on_gpu.data.held_out_prompts, on_gpu.oracle.path) == (None, "llm-blender/PairRM")


def test_a_small_model_and_prompts_of_ones_own_need_nothing_else():
    assert message_of("experiment=small") == "policy, prompts are missing: give policy=... prompts=..."
    small = load_experiment(["experiment=small", "policy=p", "prompts=mine.jsonl"])
    assert (small.cluster.launcher, small.parallel.world_size, small.precision.kind) == ("fork", 1, "fp32")
    assert (small.data.held_out_prompts, small.data.held_out_count, small.data.prompts_per_iteration) == (None, 32, 64)
    assert small.oracle.path == "llm-blender/PairRM"


@pytest.mark.parametrize("name", ["llama3-8b", "mistral-7b", "llama3-70b"])
def test_the_papers_settings(name):
    experiment = load_experiment([f"experiment={name}", "prompts=p.jsonl"])
    assert experiment.loss.eta == 1000.0
    assert experiment.train.learning_rate == 5e-7
    assert (experiment.train.train_epochs, experiment.train.schedule_epochs) == (1, 18)
    assert (experiment.train.global_batch_size, experiment.iterations) == (64, 3)
    assert (experiment.gate.kind, experiment.gate.form, experiment.repulsion.kind) == (
        "linear",
        "pairwise",
        "euclidean",
    )
    assert experiment.data.max_prompt_tokens == 512
    assert experiment.rollout.max_response_tokens == 2048


def test_a_plain_override_reaches_a_field_that_no_yaml_mentions():
    assert load_experiment([QUICK, "train.weight_decay=0.25"]).train.weight_decay == 0.25
    assert load_experiment([QUICK, "engine.extra.swap_space=4"]).engine.extra == {"swap_space": 4}


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("dtype=float16", "set engine.dtype instead"),
        ("tensor_parallel_size=2", "set engine.tensor_parallel instead"),
        ("logprobs_mode=processed_logprobs", "cannot be set; training reads a response's own log-probs"),
        ("worker_extension_cls=a.B", "cannot be set; equal samples of equal steps need ours"),
    ],
)
def test_what_would_silently_displace_a_setting_of_the_engine_is_refused(given, advice):
    name = given.partition("=")[0]
    assert f"extra.{name}: {advice}" in message_of(QUICK, f"engine.extra.{given}")


def test_group_choice_and_its_setting_compose_in_any_order():
    chosen = load_experiment([QUICK, "gate.exponent=3", "gate=power"]).gate
    assert (chosen.kind, chosen.exponent) == ("power", 3.0)


def test_an_experiments_setting_for_another_kind_is_left_out_but_a_given_one_is_refused():
    assert load_experiment([QUICK, "loss=dpo"]).loss.kind == "dpo"  # the quickstart sets loss.eta
    assert message_of(QUICK, "loss=dpo", "loss.eta=3") == (
        "loss.eta: no setting of loss=dpo; it belongs to loss=sppo or sppo_single or sppo_hard"
    )


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.learning_rat=1", "train.learning_rate"),
        ("learning_rate=1", "train.learning_rate"),
        ("rollout.temprature=1", "rollout.temperature"),  # codespell:ignore
        ("experimnt=quickstart", "experiment"),  # codespell:ignore
        ("oracle.pth=x", "oracle.path"),
        ("cluster.train.pyton=x", "cluster.train.python"),  # codespell:ignore
        ("sead=1", "seed"),
        ("train.lr=1", "train.learning_rate"),
        ("max_prompt_length=512", "data.max_prompt_tokens"),
        ("train.per_device_train_batch_size=1", "train.micro_batch_size"),
        ("model_name_or_path=x", "policy"),
    ],
)
def test_an_unknown_key_names_the_nearest(override, nearest):
    key = override.partition("=")[0]
    assert message_of(QUICK, override) == f"{key}: no such setting (did you mean {nearest}?)"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rate=fast", "train.learning_rate=fast: expected a number"),
        ("seed=abc", "seed=abc: expected a whole number"),
        ("train.packing=7", "train.packing=7: expected true or false"),
        ("rollout.samples_per_prompt=1", "rollout.samples_per_prompt=1: expected greater than or equal to 2"),
        ("pairs.estimator=borda", "pairs.estimator=borda: expected 'pairwise' or 'bt_mean_score'"),
        ("train=5", "train=5: expected a section (key.name=value sets one of its settings)"),
        ("gate.kind=sharp", "gate.kind=sharp: no such kind; one of none, linear, power, sigmoid, threshold, kernel"),
        ("name=../x", "name: '../x' is no name of a run: up to 100 letters, digits and . _ -"),
        ("policy=null", "policy=null: expected text"),
        ("train.loggers=wandb", "train.loggers=wandb: expected a list, which is written train.loggers=[wandb]"),
        ("policy=~/llama", """cannot read the override 'policy=~/llama': no shell puts your home directory in there"""),
        ("policy=[a,b]", "policy=['a', 'b']: expected text"),
        ("experiment=quickstrt", "experiment=quickstrt: no such choice (did you mean quickstart?); one of llama3-70b"),
        ("gate=shap", "gate=shap: no such choice; one of "),
        ("seed=1,2", "seed=1,2: several values; a run takes one"),
        ("seed", "cannot read the override 'seed': write key=value"),
        ("quickstart", "cannot read the override 'quickstart': write experiment=quickstart"),
        ("power", "cannot read the override 'power': write gate=power"),
        ("prompts=a=b", """cannot read the override 'prompts=a=b': a value with special characters needs quotes"""),
    ],
)
def test_a_wrong_value_names_field_value_and_expectation(override, message):
    assert message_of(QUICK, override).startswith(message)


def test_names_of_other_trainers_lead_to_settings_that_exist():
    assert set(NAMES_ELSEWHERE.values()) <= set(kinds_of_keys())
    assert not set(NAMES_ELSEWHERE) & set(kinds_of_keys())


def test_the_advised_quotes_work():
    assert message_of(QUICK, "prompts=a=b").endswith("""'prompts="a=b"'""")
    assert load_experiment([QUICK, 'prompts="a=b"']).prompts == "a=b"


def test_what_is_missing_names_the_flags_to_give():
    assert message_of("experiment=llama3-8b") == "prompts is missing: give prompts=..."
    assert message_of() == (
        "name, policy, prompts are missing: give name=... policy=... prompts=..., "
        "or start from model=... method=..., or from experiment=llama3-70b, llama3-8b, llama3-8b-paper, mistral-7b, "
        "mistral-7b-paper, quickstart, quickstart-gpu or small"
    )


@pytest.mark.parametrize("experiment", ["llama3-8b", "llama3-8b-paper", "small"])
def test_another_oracle_does_not_take_pairrms_weights(experiment):
    given = f"experiment={experiment}", "prompts=p.jsonl", "policy=policy"
    assert load_experiment(given).oracle.path == "llm-blender/PairRM"
    assert message_of(*given, "oracle=reward_model") == "oracle.path is missing: give oracle.path=..."


def test_an_experiments_own_pairrm_is_no_reward_model():
    """The quickstart names it itself where the prompts are one's own."""
    told = message_of(QUICK, "prompts=mine.jsonl", "data.held_out_prompts=null", "oracle=reward_model")
    assert told.startswith("oracle.path: llm-blender/PairRM compares pairs (oracle=pairrm); give a classifier")


def test_inconsistent_settings_are_named():
    assert "estimated_from=6 is more than rollout.samples_per_prompt=5" in message_of(QUICK, "pairs.estimated_from=6")
    assert "bt_mean_score reads all" in message_of(QUICK, "pairs.estimated_from=2", "pairs.estimator=bt_mean_score")
    assert "global_batch_size=33 is not a multiple" in message_of(
        QUICK, "train.global_batch_size=33", "parallel.data=2"
    )
    assert message_of(QUICK, "parallel.sequence=true", "parallel.tensor=1").startswith("parallel: ")
    assert message_of(QUICK, "prompts=[a.jsonl]", "iterations=2").startswith(
        "prompts is a list of 1 for iterations=2; "
    )
    twice = ("data.columns.prompt=text", "data.columns.system=text")
    assert message_of(QUICK, *twice).startswith("data.columns: 'text' is named twice; a field holds one of them")


def test_a_number_is_a_name_too():
    assert load_experiment([QUICK, "name=7"]).name == "7"


def test_interpreters_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("NEMO_SSPO_TRAIN_PYTHON", "/opt/nemo/python")
    monkeypatch.delenv("NEMO_SSPO_ROLLOUT_PYTHON", raising=False)
    cluster = load_experiment([QUICK]).cluster
    assert (cluster.train.python, cluster.rollout.python) == ("/opt/nemo/python", ".venv/rollout/bin/python")


def test_a_directory_of_the_user_adds_choices(tmp_path):
    own = tmp_path / "it's mine"
    (own / "cluster").mkdir(parents=True)
    (own / "cluster" / "site.yaml").write_text("gpus: 2\ntrain: {python: t}\nrollout: {python: r}\n")
    cluster = load_experiment([QUICK, "cluster=site"], own).cluster
    assert (cluster.gpus, cluster.train.python) == (2, "t")
    assert message_of(QUICK, "cluster=site").startswith("cluster=site: no such choice")
    assert "no such directory" in message_of(QUICK, config_dir=tmp_path / "absent")


def test_conf_of_the_working_directory_adds_choices_of_the_shipped_groups(tmp_path, monkeypatch):
    """Another program's groups beside them choose nothing: a policy is a path there too."""
    monkeypatch.chdir(tmp_path)
    site = "gpus: 2\ntrain: {python: t}\nrollout: {python: r}\n"
    (tmp_path / "conf" / "cluster").mkdir(parents=True)
    (tmp_path / "conf" / "cluster" / "site.yaml").write_text(site)
    cluster = load_experiment([QUICK, "cluster=site"]).cluster
    assert (cluster.gpus, cluster.train.python) == (2, "t")
    (tmp_path / "conf" / "policy").mkdir()
    (tmp_path / "conf" / "policy" / "actor.yaml").write_text("layers: 2\n")
    assert load_experiment([QUICK, "policy=org/model"]).policy == "org/model"
    (tmp_path / "conf").rename(tmp_path / "sites")
    assert load_experiment([QUICK, "cluster=site"], Path("sites")).cluster == cluster
    said = message_of(QUICK, "cluster=site")
    assert said.endswith("; your own are YAML files in cluster/ below conf/ of this directory or below a --config-dir")


def test_a_file_that_is_no_yaml_is_named_with_its_line(tmp_path):
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text("kind: slurm\n  partition: x\n")
    said = message_of(QUICK, "cluster=mine", config_dir=tmp_path)
    assert said.startswith(f"{tmp_path}/cluster/mine.yaml line 2: not YAML (mapping values are not allowed")


def test_composing_twice_leaves_nothing_behind():
    first = load_experiment([QUICK, "seed=5"])
    load_experiment(["experiment=llama3-8b", "prompts=x"])
    assert load_experiment([QUICK, "seed=5"]) == first


def test_a_stored_experiment_reads_back_equal():
    experiment = load_experiment([QUICK, "gate=threshold", "train.schedule_epochs=3"])
    assert type(experiment).model_validate_json(experiment.model_dump_json()) == experiment


def test_every_shipped_yaml_names_only_differences_from_the_defaults():
    """A group's file that repeats a default would drift from it; `kind` is what the file is for."""
    for path in sorted((config_root()).glob("*/*.yaml")):
        group, name = path.parent.name, path.stem
        if group in (*WHOLE_TREE, "cluster", "parallel"):
            continue
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        keys = [line.partition(":")[0] for line in lines]
        assert keys[0] == "kind", path
        if name == "linear_pairwise":
            assert lines == ["kind: linear", "form: pairwise"]
        elif group in ("loss", "gate", "repulsion", "precision"):
            assert lines == [f"kind: {name}"], path


def refusal(override: str) -> str:
    """What is said to an override; nothing when it is taken."""
    try:
        compose_settings([QUICK, override])
    except UserError as error:
        return str(error)
    return ""


@settings(max_examples=60)
@given(st.text(max_size=40))
@example("~")
def test_any_text_composes_or_is_refused_in_one_line(text):
    for override in (text, f"prompts={text}", f"{text}=1"):
        assert len(refusal(override).splitlines()) <= 1


def test_a_kind_that_is_named_as_its_field_is_told_apart():
    """`oracle=function` has a field `function`; a problem beside it is not below it."""
    quick = (QUICK, "oracle=function")
    assert message_of(*quick) == "oracle.function is missing: give oracle.function=..."
    given = (*quick, "oracle.function=a:b")
    assert message_of(*given, "oracle.path=x").startswith("oracle.path: no setting of oracle=function")
    assert message_of(*given, "oracle.arguments=3") == "oracle.arguments=3: expected a mapping"


def test_a_cap_in_dollars_needs_prices():
    judge = (QUICK, "oracle=llm_judge", "oracle.model=m", "oracle.max_dollars=1")
    assert "max_dollars needs dollars_per_million_input_tokens" in message_of(*judge)
    prices = ("oracle.dollars_per_million_input_tokens=1", "oracle.dollars_per_million_output_tokens=0")
    assert load_experiment([*judge, *prices]).oracle.max_dollars == 1


def test_a_prefix_is_named_once():
    assert "give one" in message_of(QUICK, "encoder.prefix=a", "encoder.prompt_name=b")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.reference_source=rollout_checked", "train.reference=base"], "train.reference=previous"),
        (["train.share_prompt=true"], "train.packing=true"),
    ],
)
def test_training_settings_that_exclude_each_other(overrides, message):
    assert message in message_of(QUICK, *overrides)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# one\nname: caf\xe9\n", r"experiment/mine\.yaml line 2: not UTF-8 \(byte 0xe9\); save the file as UTF-8$"),
        (b"name: a\0b\n", r"unacceptable character #x0000.*experiment/mine\.yaml"),
    ],
)
def test_a_file_in_another_encoding_is_named(tmp_path, content, message):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_experiment(["experiment=mine"], tmp_path)
    assert "\n" not in str(caught.value)


def test_an_adapter_is_exported_of_lora_alone():
    assert "export_adapter exports LoRA's adapter: set train.peft=lora" in message_of(
        QUICK, "train.export_adapter=true"
    )
    assert load_experiment([QUICK, "train.export_adapter=true", "train.peft=lora"]).train.export_adapter


def test_what_another_package_has_registered_is_no_group_of_ours(monkeypatch):
    """NeMo registers one that has the name of a setting."""
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", {**store.repo, "trainer": {"default.yaml": {}}})
    assert load_experiment(["experiment=quickstart", "trainer=core"]).trainer == "core"
    assert "trainer" in store.repo
