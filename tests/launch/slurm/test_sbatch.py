"""The scripts of Slurm jobs: what they were when last looked at, accepted by shellcheck, and what a value says stays
a value."""

import os
import random
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nemo_sspo.artifacts.shard_ranges import shards_in
from nemo_sspo.config.cluster import Resources
from nemo_sspo.config.environments import SCRIPT_VARIABLES, SlurmEnvironment
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.slurm import sbatch
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.slurm.sbatch import RunPaths, directive, environment_text, quote, render

GOLDEN = Path(__file__).parents[2] / "golden" / "sbatch"
PLACE = Path("/shared/project")
EXPERIMENTS = {
    "quickstart": ["experiment=quickstart", "cluster=slurm_cpu", "rollout.shards=2"],
    "llama3-8b": ["experiment=llama3-8b", "cluster=slurm_modules", "prompts=p.jsonl"],
    "llama3-70b": ["experiment=llama3-70b", "cluster=slurm_pyxis", "prompts=p.jsonl"],
}
SHOWN = ("iter_1.rollout", "iter_1.build_pairs", "iter_1.train", "report")


def scripts(name: str, *overrides: str) -> dict[str, str]:
    """The text of every job of an experiment's first iteration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NEMO_SSPO_TRAIN_PYTHON", raising=False)
        patch.delenv("NEMO_SSPO_ROLLOUT_PYTHON", raising=False)
        experiment = load_experiment([*EXPERIMENTS[name], "iterations=1", *overrides])
    place = RunPaths(PLACE / "runs" / experiment.name, PLACE)
    return {job.name: render(job, experiment.cluster, place, experiment.name) for job in jobs(experiment)}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_golden(name):
    """NEMO_SSPO_UPDATE_GOLDEN=1 writes the files anew; read the difference before it is committed."""
    texts = scripts(name)
    for job in SHOWN:
        path = GOLDEN / name / f"{job}.sbatch"
        if os.environ.get("NEMO_SSPO_UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[job])
        assert texts[job] == path.read_text()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("cluster.train.container=apptainer", "cluster.train.image='a b.sif'", "cluster.restarts=0"),
        ("cluster.shards_per_task=2",),
    ],
)
def test_shellcheck_finds_nothing(tmp_path, name, overrides):
    for job, text in scripts(name, *overrides).items():
        (tmp_path / f"{job}.sh").write_text(text)
    done = subprocess.run(["shellcheck", *tmp_path.iterdir()], capture_output=True, text=True)
    assert done.stdout == ""


def test_every_script_parses_and_turns_no_tracing_on():
    for name in EXPERIMENTS:
        for text in scripts(name).values():
            assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).stderr == ""
            assert "set -x" not in text
            assert "--export" not in text


def test_the_resources_are_the_stages_own_then_the_clusters():
    overrides = ("cluster.stages.train.time=2-00", "cluster.qos=low", "cluster.stages.train.qos=high")
    texts = scripts("llama3-70b", *overrides, "cluster.stages.score.options={constraint: h100}")
    assert "#SBATCH --time=2-00\n" in texts["iter_1.train"]
    assert "#SBATCH --qos=high\n" in texts["iter_1.train"]
    assert "#SBATCH --qos=low\n" in texts["iter_1.score"]
    assert "#SBATCH --constraint=h100\n" in texts["iter_1.score"]
    assert "constraint" not in texts["iter_1.train"]


def test_cores_are_asked_for_by_the_gpus_that_a_process_drives():
    """A rank drives one GPU, an engine all of its own; what drives none has the cores of one."""
    texts = scripts("llama3-70b", "cluster.cpus_per_task=12")
    for job, cores in {"iter_1.train": 12, "iter_1.rollout": 96, "iter_1.score": 12, "iter_1.build_pairs": 12}.items():
        assert f"#SBATCH --cpus-per-task={cores}\n" in texts[job], job
        assert f" --cpus-per-task={cores} " in texts[job], job


def test_a_job_without_gpus_hides_those_of_others():
    texts = scripts("llama3-8b", "cluster.request_gpus=exclusive")
    hidden = {job for job, text in texts.items() if "\nexport CUDA_VISIBLE_DEVICES=\n" in text}
    host = {"iter_0.import_policy", "iter_1.export", "iter_1.build_pairs", "prepare_prompts", "report"}
    assert host <= hidden
    assert not hidden & {"iter_1.rollout", "iter_1.score", "iter_1.reference_logps", "iter_1.train"}


def test_a_task_of_several_shards_names_them_all_and_none_too_many(tmp_path):
    """Seven shards by threes: what bash makes of each task's number."""
    text = scripts("quickstart", "rollout.shards=7", "cluster.stages.rollout.shards_per_task=3")["iter_1.rollout"]
    assert "#SBATCH --array=0-2\n" in text
    first, word = re.search(r"^first=(\S.*?) #", text, re.MULTILINE)[1], re.search(r"--shard (\S.*?) \\\n", text)[1]
    script = f"first={first}; echo {word}"
    seen = [
        subprocess.run(["bash", "-c", f"task={task}; {script}"], capture_output=True, text=True).stdout.strip()
        for task in range(3)
    ]
    assert [shards_in(shards) for shards in seen] == [(0, 1, 2), (3, 4, 5), (6,)]


def test_the_scripts_own_variables_are_reserved():
    text = (Path(__file__).parents[3] / "slurm" / "stage.sbatch.j2").read_text()
    assigned = set(re.findall(r"(?:^|[\s('])([a-z_]+)=(?![a-z-]*%|=)", "\n".join(shell_lines(text))))
    assert assigned == SCRIPT_VARIABLES
    for name in (*SCRIPT_VARIABLES, "SLURM_JOB_ID", "NEMO_SSPO_RANKS"):
        with pytest.raises(ValidationError, match="own variable"):
            SlurmEnvironment(variables={name: "x"})


def shell_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(("#", "{%"))]


def test_apptainer_runs_inside_of_srun_with_the_run_mounted():
    image = ("cluster.train.container=apptainer", "cluster.train.image=nemo.sif", "cluster.train.mounts=[/data:/data]")
    text = scripts("llama3-8b", *image)["iter_1.train"]
    run = f"{PLACE}/runs/llama3-8b"
    bound = f"--bind={PLACE}:{PLACE} --bind={run}:{run} --bind=/data:/data"
    assert f"--cpus-per-task=16 apptainer exec --nv --pwd={PLACE} {bound} {PLACE}/nemo.sif " in text


@pytest.mark.parametrize(
    ("image", "given"),
    [
        ("images/nemo.sqsh", f"{PLACE}/images/nemo.sqsh"),  # without the slash in front, pyxis asks a registry
        ("/images/nemo.sqsh", "/images/nemo.sqsh"),
        ("nvidia/nemo:25.11", "nvidia/nemo:25.11"),
    ],
)
def test_an_image_is_a_file_by_its_whole_path_or_a_name(image, given):
    text = scripts("llama3-8b", "cluster.train.container=pyxis", f"cluster.train.image={image}")["iter_1.train"]
    assert f" --container-image={given} " in text


@pytest.mark.parametrize("container", ["pyxis", "apptainer"])
def test_the_images_variables_do_not_win(tmp_path, container):
    """Both runtimes let an image's own variables stand: the environment's are set once more inside."""
    (tmp_path / "train.env").write_text(environment_text({"SET": "by us; 'all of it'"}))
    text = scripts("llama3-8b", f"cluster.train.container={container}", "cluster.train.image=nemo.sif")["iter_1.train"]
    words = shlex.split(next(line for line in text.splitlines() if line.startswith("srun ")).removesuffix("\\"))
    inside = words[words.index("sh") :]
    assert inside[3] == f"{PLACE}/runs/llama3-8b/slurm/train.env"
    command = [*inside[:3], str(tmp_path / "train.env"), "printenv", "SET"]
    done = subprocess.run(command, env={**os.environ, "SET": "by the image"}, capture_output=True, text=True)
    assert done.stdout == "by us; 'all of it'\n"


# --- strings ---------------------------------------------------------------------------------------------------------

STRINGS = 10_000
VARIABLES = 10
PAYLOADS = (
    "$(touch $CANARY)",
    "`touch $CANARY`",
    "; touch $CANARY;",
    "' ; touch $CANARY ; '",
    '" ; touch $CANARY ; "',
    "'\"$(touch $CANARY)\"'",
    "| touch $CANARY",
    "& touch $CANARY &",
    "${IFS}$(touch${IFS}$CANARY)",
    "$'\\n'touch $CANARY",
    "\\' $(touch $CANARY)",
    "#", "*", "~", "%A", "{a,b}", "--version", "!!", "\\", "'", '"', "$", "é漢", "[", "a[$(touch $CANARY)]",
)  # fmt: skip
_STUBS = """
words() { printf '%s\\0' "$@"; }
srun() { words "$#" "$@" "$PWD" "$run" "$V0" "$V1" "$V2" "$V3" "$V4" "$V5" "$V6" "$V7" "$V8" "$V9" >"$OUT.srun"; }
module() { words "$@" >>"$OUT.modules"; }
source() { if [[ $1 == *.env ]]; then builtin source "$1"; else words "$1" >>"$OUT.source"; fi; }
date() { echo 0; }
for OUT in "$SCRIPTS"/*.sbatch; do (SLURM_JOB_ID=1; builtin source "$OUT"); done
"""


class Strings:
    """Random words out of payloads and characters; the same ones in every run of the test."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        self.made = 0

    def take(self, alphabet: str = "ab -=:/.$'\"`\\;&|<>(){}*?#~!%^") -> str:
        """The next string."""
        self.made += 1
        pieces = [
            self._random.choice(PAYLOADS) if self._random.random() < 0.4 else self._random.choice(alphabet)
            for _ in range(self._random.randint(1, 8))
        ]
        return "".join(pieces)


def write_scripts(folder: Path, strings: Strings, count: int) -> dict[Path, tuple[RunPaths, SlurmEnvironment]]:
    """Scripts that hold `count` strings in every place where a script takes free text; what each must arrive as."""
    experiment = load_experiment([*EXPERIMENTS["llama3-8b"], "iterations=1"])
    train = next(job for job in jobs(experiment) if job.stage == "train")
    expected = {}
    (folder / "scripts").mkdir()
    while strings.made < count:
        number = len(expected)
        place = RunPaths(folder / f"r{number}" / name(strings), folder / f"w{number}" / name(strings))
        for path in (place.run / "logs", place.state / "attempts", place.workdir):
            path.mkdir(parents=True)
        environment = SlurmEnvironment(
            python=strings.take(),
            modules=(strings.take(), strings.take()),
            setup_file="/" + strings.take(),
            variables={f"V{index}": strings.take() + "\n" * (index % 2) for index in range(VARIABLES)},
        )
        place.environment_file("train").write_text(environment_text(environment.variables))
        script = folder / "scripts" / f"{number:05d}.sbatch"
        script.write_text(render(replace(train, environment=environment), experiment.cluster, place, experiment.name))
        expected[script] = (place, environment)
    return expected


def read_by_bash(folder: Path) -> bool:
    """Have one bash run every script; whether anything in a string was executed."""
    environment = {"PATH": os.environ["PATH"], "SCRIPTS": str(folder / "scripts"), "CANARY": str(folder / "canary")}
    subprocess.run(["bash", "-c", _STUBS], env=environment, cwd=folder, capture_output=True, timeout=120)
    return (folder / "canary").exists()


def test_ten_thousand_strings_stay_values_when_bash_reads_the_scripts(tmp_path):
    """Nothing is executed, and every string arrives as it was, down to the newline at its end."""
    expected = write_scripts(tmp_path, Strings(), STRINGS)
    assert not read_by_bash(tmp_path)
    for script, (place, environment) in expected.items():
        words = Path(f"{script}.srun").read_text().split("\0")[:-1]
        count = int(words[0])
        assert words[1 + count :] == [str(place.workdir), str(place.run), *environment.variables.values()]
        arguments = words[1 : 1 + count]
        assert environment.python in arguments
        assert arguments[arguments.index("--run") + 1] == str(place.run)
        modules = Path(f"{script}.modules").read_text().split("\0")[:-1]
        assert modules == [word for module in environment.modules for word in ("load", module)]
        assert Path(f"{script}.source").read_text().split("\0")[:-1] == [environment.setup_file]


@pytest.mark.parametrize("left_out", ["the filter", "shlex"])
def test_without_quotes_the_strings_would_be_executed(tmp_path, monkeypatch, left_out):
    """The canary is alive: a quote that is left out anywhere is seen."""
    if left_out == "the filter":
        monkeypatch.setitem(sbatch.template().environment.filters, "quote", str)
    else:
        monkeypatch.setattr(sbatch.shlex, "quote", str)
    write_scripts(tmp_path, Strings(), 300)
    assert read_by_bash(tmp_path)


def name(strings: Strings) -> str:
    """A string that can be a directory's name."""
    return "d" + strings.take().replace("/", "_")


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=2000)
def test_an_option_is_a_plain_word_or_refused(text):
    """No ``#SBATCH`` line can hold a second word, a quote or another line."""
    for make in (lambda: Resources(partition=text), lambda: Resources(options={"constraint": text})):
        try:
            made = make()
        except ValidationError:
            continue
        value = made.partition or made.options["constraint"]
        assert directive(f"--partition={value}") == f"--partition={text}"
        assert not set(text) & set(" \t\n\r\"'\\#$`;<>")


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b", "a\x1bb", "a\u2028b"])
def test_a_control_character_is_refused_with_its_name(text):
    with pytest.raises(UserError, match="cannot be printed"):
        quote(text)


@pytest.mark.parametrize("variable", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET", "db_password"])
def test_secrets_are_refused_as_settings(variable):
    with pytest.raises(ValidationError, match="looks like a secret"):
        SlurmEnvironment(variables={variable: "x"})
    assert SlurmEnvironment(variables={"TOKENIZERS_PARALLELISM": "false"}).variables


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "RANK", "WORLD_SIZE", "MASTER_ADDR"])
def test_what_differs_between_processes_is_no_setting(name):
    with pytest.raises(ValidationError, match=f"{name} is set for each process by what starts it"):
        SlurmEnvironment(variables={name: "0"})


@pytest.mark.parametrize(
    "option",
    ["output", "array", "dependency", "wrap", "signal", "gres", "gpus", "exclusive", "mem-per-gpu", "gpus-per-task"],
)
def test_options_that_the_loop_depends_on_are_refused(option):
    with pytest.raises(ValidationError, match=f"--{option}: leave it out"):
        Resources(options={option: "x"})


def test_mounts_cannot_smuggle_further_mounts():
    for mount in ("/a:/a,/etc:/etc", "/a", "/a:/b c"):
        with pytest.raises(UserError, match="mounts: "):
            scripts("llama3-70b", f"cluster.train.mounts=['{mount}']")
