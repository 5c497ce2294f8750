"""Clusters: old files, time limits, and a stage's resources over the cluster's."""

import pytest
from pydantic import ValidationError

from nemo_sspo.config.cluster import LocalCluster, Resources, SlurmCluster, StageResources
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.stages.runner.registry import STAGES


def test_every_stage_has_its_resources():
    assert list(StageResources.model_fields) == list(STAGES)


def test_a_file_without_a_kind_is_a_local_cluster(tmp_path):
    (tmp_path / "cluster").mkdir()
    text = "launcher: fork\ngpus: 0\ntrain: {python: python}\nrollout: {python: python}\n"
    (tmp_path / "cluster" / "old.yaml").write_text(text)
    cluster = load_experiment(["experiment=quickstart", "cluster=old"], tmp_path).cluster
    assert isinstance(cluster, LocalCluster)
    assert (cluster.launcher, cluster.gpus) == ("fork", 0)


def test_ten_lines_make_a_site(tmp_path):
    """The example of slurm/README.md."""
    (tmp_path / "cluster").mkdir()
    text = "kind: slurm\npartition: gpu\ntime: '08:00:00'\ngpus_per_node: 4\ntrain:\n  python: /envs/train/bin/python\n"
    (tmp_path / "cluster" / "site.yaml").write_text(text + "rollout:\n  python: /envs/rollout/bin/python\n")
    cluster = load_experiment(["experiment=llama3-8b", "prompts=p", "cluster=site"], tmp_path).cluster
    assert isinstance(cluster, SlurmCluster)
    assert cluster.resources_of("train") == Resources(partition="gpu", time="08:00:00")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("01:30:00", 5400), ("1-12", 129600), ("1-00:10", 87000), ("2-01:01:01", 176461)],
)
def test_time_limits_are_slurms(text, seconds):
    """As `man sbatch` defines the forms of --time."""
    assert Resources(time=text).seconds == seconds


@pytest.mark.parametrize("text", ["24:00:00", "1:30:00", "12:30", "60"])
def test_a_time_limit_that_yaml_reads_as_a_number_is_refused(tmp_path, text):
    """Without quotes 24:00:00 is 86400 to YAML 1.1, and 86400 minutes to Slurm; with them it is a day."""
    (tmp_path / "cluster").mkdir()
    site = "kind: slurm\ntime: {}\ntrain: {{python: /p}}\nrollout: {{python: /p}}\n"
    overrides = ["experiment=llama3-8b", "prompts=p", "cluster=site"]
    (tmp_path / "cluster" / "site.yaml").write_text(site.format(text))
    with pytest.raises(UserError, match=r"cluster.time.*quote it"):
        load_experiment(overrides, tmp_path)
    (tmp_path / "cluster" / "site.yaml").write_text(site.format(f"'{text}'"))
    assert load_experiment(overrides, tmp_path).cluster.time == text


@pytest.mark.parametrize("cluster", ["local_cpu", "slurm_cpu"])
@pytest.mark.parametrize(
    "variable", ["HF_TOKEN: x", "PGPASSWORD: x", "OPENAI_APIKEY: x", "https_proxy: 'http://me:secret@proxy:80'"]
)
def test_a_secret_is_refused_before_it_is_stored_with_a_run(cluster, variable):
    overrides = ["experiment=quickstart", f"cluster={cluster}", f"+cluster.train.variables={{{variable}}}"]
    with pytest.raises(UserError, match="export it in the calling shell") as caught:
        load_experiment(overrides)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize("variable", ["TOKENIZERS_PARALLELISM: x", "MONKEY: x", "http_proxy: 'http://proxy:80'"])
def test_what_only_resembles_a_secret_is_taken(variable):
    load_experiment(["experiment=quickstart", f"+cluster.train.variables={{{variable}}}"])


@pytest.mark.parametrize("text", ["", "1h", "-5", "1:2:3:4", "1-", "1\n", "١٢", "1 ; reboot"])
def test_what_is_no_time_limit_is_refused(text):
    with pytest.raises(ValidationError):
        Resources(time=text)


def test_a_stage_wins_and_options_add_up():
    stage = Resources(time="10", options={"constraint": "h100", "nice": "5"})
    cluster = Resources(time="60", partition="gpu", options={"nice": "1", "mail-type": "FAIL"})
    merged = stage.over(cluster)
    assert (merged.time, merged.partition) == ("10", "gpu")
    assert merged.options == {"nice": "5", "mail-type": "FAIL", "constraint": "h100"}


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("mem-per-gpu", "leave it out, cluster.memory has it"),
        ("gres", "leave it out, cluster.request_gpus and gpu_type have it"),
        ("gpus", "leave it out, cluster.request_gpus and gpu_type have it"),
        ("exclusive", "leave it out, cluster.request_gpus and gpu_type have it"),
        ("gpus-per-task", "leave it out, it is set from the plan"),
        ("gpu-bind", "leave it out, it is set from the plan"),
        ("qos", "leave it out, cluster.qos has it"),
        ("mem-per-g", "which is short for --mem-per-gpu: leave it out, cluster.memory has it"),
        ("gre", "which is short for --gres: leave it out, cluster.request_gpus"),
    ],
)
@pytest.mark.parametrize("where", ["cluster.options", "cluster.stages.train.options"])
def test_an_option_that_contradicts_the_plan_or_a_setting_is_refused_by_name(where, name, instead):
    """sbatch refuses both in one script, or takes one of them."""
    with pytest.raises(UserError) as caught:
        load_experiment(["experiment=llama3-8b", "prompts=p", "cluster=slurm_pyxis", f"+{where}={{{name}: '1'}}"])
    assert f"--{name}" in str(caught.value)
    assert instead in str(caught.value)


@pytest.mark.parametrize(
    "name", ["constraint", "exclude", "nodelist", "mem-bind", "time-min", "wait-all-nodes", "nice"]
)
def test_other_options_are_passed_on(name):
    assert Resources(options={name: "1"}).options == {name: "1"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "cluster.parallel_steps=2",
            "no setting of cluster=slurm; it belongs to cluster=local",
        ),
        ("cluster.partitions=x", "did you mean cluster.partition?"),
        ("cluster.stages.training.time=5", "did you mean cluster.stages.train"),
        ("cluster.partition='a b'", "cluster.partition=a b: expected one word of letters, digits and "),
        ("cluster.time=banana", "cluster.time=banana: expected a time limit as sbatch takes it: minutes (90), hours:"),
        (
            "cluster.stages.train.memory='64 GB'",
            "cluster.stages.train.memory=64 GB: expected memory as sbatch takes it",
        ),
        ("cluster.launcher=fork", "cluster: launcher=fork forks ranks"),
        ("cluster.train.variables.HF_TOKEN=x", "HF_TOKEN looks like a secret"),
    ],
)
def test_mistakes_are_one_line(override, message):
    with pytest.raises(UserError) as caught:
        load_experiment(["experiment=llama3-8b", "prompts=p", "cluster=slurm_pyxis", override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
