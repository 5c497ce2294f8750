"""Every model of conf/model with every method of conf/method: it resolves, is planned and becomes a cluster's jobs."""

import json
from pathlib import Path

import pytest

from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import change_experiment, choices, load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.preflight import problems
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.slurm.sbatch import RunPaths, render
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.layout import layout_problems, mixture_problems, setting_problems
from tests.launch import ready_run
from tests.published_models import PUBLISHED

MODELS = {
    **{name: 8 for name in ("llama3-8b", "mistral-7b", "qwen2.5-1.5b", "qwen2.5-7b", "qwen3-4b", "qwen3-8b")},
    **{"gemma-2-2b": 8, "gemma-2-9b": 8, "llama3-70b": 32, "llama3.1-70b": 64},
    **{"qwen3-30b-a3b": 16, "mixtral-8x7b": 32},
}
"""GPUs that training takes."""
WON = ("dpo", "none", 0.0, "pairrm")
METHODS = {
    "sppo": ("sppo", "none", 0.0, "pairrm"),
    "gate-only": ("sppo", "linear", 0.0, "pairrm"),
    "repulsion-only": ("sppo", "none", 1.0, "pairrm"),
    "s-sppo": ("sppo", "linear", 1.0, "pairrm"),
    "sppo-paper": ("sppo", "none", 0.0, "pairrm"),
    "s-sppo-paper": ("sppo", "linear", 1.0, "pairrm"),
    "iterative-dpo": WON,
    "iterative-ipo": ("ipo", *WON[1:]),
    "snorkel-dpo": WON,
    "self-rewarding": (*WON[:3], "policy_judge"),
}
"""Loss, gate, weight of the repulsion, and oracle."""
PLACE = Path("/shared/project")


def run_of(model: str, method: str, *overrides: str) -> Experiment:
    return load_experiment([f"model={model}", f"method={method}", "prompts=[a,b,c]", *overrides])


def test_these_are_all() -> None:
    assert set(MODELS) == set(choices("model"))
    assert set(METHODS) == set(choices("method"))


@pytest.mark.parametrize("model", MODELS)
def test_every_method_of_a_model_is_planned_and_rendered(model: str) -> None:
    for method in METHODS:
        experiment = run_of(model, method, "cluster=slurm_pyxis")
        assert experiment.name == f"{model}-{method}"
        found = experiment.loss.kind, experiment.gate.kind, experiment.repulsion.weight, experiment.oracle.kind
        assert found == METHODS[method]
        assert experiment.parallel.world_size == MODELS[model]
        ranks = {step.ranks for step in plan(experiment) if step.stage == "train"}
        assert ranks == {MODELS[model]}
        graph = jobs(experiment)
        for job in graph:
            text = render(job, experiment.cluster, RunPaths(PLACE / "runs" / experiment.name, PLACE), experiment.name)
            assert f"--job-name={experiment.name}.{job.name}" in text
        (train,) = (job for job in graph if job.name == "iter_1.train")
        assert train.nodes * train.gpus_per_node == MODELS[model]


@pytest.mark.parametrize(("parallel", "gpus"), [("tp8_pp4_dp2", 64), ("tp8_pp4_dp4", 128), ("tp8_pp4_dp8", 256)])
def test_seventy_billion_parameters_on_three_sizes(parallel: str, gpus: int) -> None:
    experiment = run_of("llama3.1-70b", "s-sppo", f"parallel={parallel}", "cluster=slurm_pyxis")
    (train,) = (job for job in jobs(experiment) if job.name == "iter_1.train")
    assert train.nodes * train.gpus_per_node == gpus
    assert experiment.train.global_batch_size % (experiment.parallel.data * experiment.train.micro_batch_size) == 0


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_model_divides_over_its_layout(model: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[model]))
    experiment = run_of(model, "s-sppo")
    config = read_hf_config(tmp_path)
    settings = experiment.parallel, experiment.train, experiment.precision
    assert list(layout_problems(config, experiment.parallel)) == []
    assert list(mixture_problems(config, *settings, experiment.trainer)) == []
    assert list(setting_problems(*settings)) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_dry_run_with_a_small_policy_finds_everything_in_order(method: str, place) -> None:
    given = [
        *("cluster=local_cpu", "precision=fp32", "parallel=single", "rollout.shards=2", "policy=policy"),
        *("data.held_out_count=5", "selection.prompts=5", "train.global_batch_size=1", "train.loggers=[]"),
        *("encoder.path=package:tests.launch.tiny_encoder", "prompts=prompts.jsonl"),
        *(override for override in ready_run.REST if override.startswith("cluster.")),
        *(["oracle.path=oracle"] if METHODS[method][3] == "pairrm" else []),
    ]
    assert problems(run_of("llama3-8b", method, *given)) == []


def test_methods_differ_in_the_method_alone() -> None:
    """Both papers compare DPO and IPO on SPPO's data and schedule; Table 5's rows differ in the two switches."""
    sppo = run_of("mistral-7b", "sppo")
    for method, changed in {
        "iterative-dpo": {"name", "loss"},
        "iterative-ipo": {"name", "loss"},
        "gate-only": {"name", "gate"},
        "repulsion-only": {"name", "repulsion"},
        "s-sppo": {"name", "gate", "repulsion"},
    }.items():
        other = run_of("mistral-7b", method)
        assert {key for key, value in other if value != getattr(sppo, key)} == changed


def test_a_name_is_that_of_the_model_and_the_method_unless_one_is_given() -> None:
    assert load_experiment(["experiment=llama3-8b", "prompts=p", "model=qwen3-8b"]).name == "qwen3-8b-s-sppo"
    assert load_experiment(["experiment=llama3-8b", "prompts=p", "method=sppo"]).name == "llama3-8b-sppo"
    assert load_experiment(["experiment=quickstart", "method=iterative-dpo"]).name == "quickstart-iterative-dpo"
    assert load_experiment(["model=qwen3-8b", "oracle.path=o", "prompts=p"]).name == "qwen3-8b"
    assert run_of("qwen3-8b", "sppo", "name=mine").name == "mine"
    assert load_experiment(["experiment=llama3-8b", "prompts=p"]).name == "llama3-8b"


def test_a_setting_of_the_command_line_wins_over_the_method() -> None:
    changed = run_of("qwen3-8b", "s-sppo", "gate=power", "loss=dpo", "parallel=tp2", "repulsion.weight=2")
    assert (changed.gate.kind, changed.loss.kind, changed.parallel.world_size) == ("power", "dpo", 2)
    assert changed.repulsion.weight == 2.0


def test_another_encoder_takes_the_place_of_the_papers_own() -> None:
    """The paper's Table 6 has three of them; a path that the method set would have stayed MiniLM's."""
    jina = run_of("llama3-8b", "s-sppo-paper", "encoder=jina_v3").encoder
    assert (jina.path, jina.task, jina.long_text) == ("jinaai/jina-embeddings-v3", "text-matching", "truncate")
    assert run_of("llama3-8b", "s-sppo-paper", "encoder=nomic_v1_5").encoder.prefix == "clustering: "


@pytest.mark.parametrize("override", ["model=qwen3-8b", "method=sppo"])
def test_a_stored_run_keeps_its_model_and_method(override: str) -> None:
    with pytest.raises(UserError, match="give the settings that change"):
        change_experiment(run_of("llama3-8b", "s-sppo"), [override])


def test_what_the_models_need() -> None:
    assert run_of("qwen3-4b", "s-sppo-paper").data.template_arguments == {"enable_thinking": False}
    judge = run_of("qwen3-8b", "self-rewarding")
    assert judge.oracle.context_tokens >= judge.data.max_prompt_tokens + 2 * judge.rollout.max_response_tokens
