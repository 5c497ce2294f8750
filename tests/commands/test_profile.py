"""``nemo-sspo profile``, with a stand-in for both environments' interpreters."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_sspo import cli
from nemo_sspo.estimate.speeds import read_speeds

_PROGRAMS = "nemo_sspo.estimate.profiling"
RATES = {
    "gpu": "Some GPU",
    "memory_gib": 100.0,
    "products_bf16": 5e14,
    "products_fp32": 5e13,
    "forward": 4e14,
    "attention": 3e14,
    "memory_bandwidth": 3e12,
    "storage": 1e9,
}
NETWORK = {"in_node": 3e11}
SAMPLED = {"tokens_per_second": 1000.0, "start": 60.0}
LLAMA_8B = 8_030_261_248


@pytest.fixture
def profile(tmp_path: Path, monkeypatch):
    """Run it, where programs answer `rates` and `sampled`; the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nemo_sspo.commands.environment.environment_problem", lambda *_: None)  # it has no packages

    def run(rates=RATES, sampled=SAMPLED, *words: str, network=NETWORK) -> int:
        answers = {"training": rates, "generation": sampled, "network": network}
        python = tmp_path / "python"
        python.write_text(
            f"#!{sys.executable}\nimport json, sys\nanswer = {answers!r}[sys.argv[2].rpartition('.')[2]]\n"
            "sys.exit('it broke') if answer is None else print(json.dumps(answer))\n"
        )
        python.chmod(0o755)
        here = [f"cluster.train.python={python}", f"cluster.rollout.python={python}"]
        return cli.main(["profile", "experiment=llama3-8b", "prompts=owner/prompts", *here, *words])

    return run


def test_what_was_measured_is_in_the_file_and_the_rest_says_where_it_is_from(profile, capsys):
    assert profile() == 0
    found, published = read_speeds(Path("speeds.yaml")), read_speeds()
    assert not found.published
    assert (found.gpu, found.memory_gib, found.storage) == ("Some GPU", 100.0, 1e9)
    assert found.products.bf16 == 5e14
    ratio = published.products.fp8 / published.products.bf16
    assert found.products.fp8 / found.products.bf16 == pytest.approx(ratio)
    assert found.generation.bf16 == pytest.approx(1000.0 * LLAMA_8B)
    assert found.starting.engine == 60.0
    assert found.sources["products"].endswith("; fp8 by the published ratio to bf16")
    assert (found.in_node, found.between_nodes) == (3e11, published.between_nodes)
    assert found.sources["between_nodes"].startswith("published: ")
    assert found.sources["storage"] == found.sources["in_node"] == "measured by nemo-sspo profile"
    capsys.readouterr()
    plan = ["plan", "experiment=llama3-8b", "prompts=owner/prompts", "--prompts-count", "9", "--estimate", "--json"]
    assert cli.main([*plan, "--speeds", "speeds.yaml"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate_for"]["gpu"] == "Some GPU"


def test_an_engine_over_several_gpus_counts_for_each(profile):
    assert profile(RATES, SAMPLED, "engine.tensor_parallel=4") == 0
    assert read_speeds(Path("speeds.yaml")).generation.bf16 == pytest.approx(250.0 * LLAMA_8B)


def test_a_gpu_that_has_fp8_is_measured_in_it(profile):
    assert profile(RATES | {"products_fp8": 8e14}) == 0
    found = read_speeds(Path("speeds.yaml"))
    assert found.products.fp8 == 8e14
    assert found.sources["products"] == "measured by nemo-sspo profile"


def test_what_several_nodes_have_measured_is_taken(profile):
    Path("network.json").write_text('{"in_node": 4e11, "between_nodes": 4.5e10}\n')
    assert profile(RATES, SAMPLED, "--network", "network.json", network=None) == 0
    found = read_speeds(Path("speeds.yaml"))
    assert (found.in_node, found.between_nodes) == (4e11, 4.5e10)
    assert found.sources["between_nodes"] == "measured by nemo-sspo profile"


@pytest.mark.parametrize(("text", "told"), [('{"in_nodes": 1}', "in_nodes"), ('{"in_node": 0}', "in_node"), ("{", "")])
def test_a_network_file_of_anything_else_is_refused_first(profile, capsys, text, told):
    Path("network.json").write_text(text)
    assert profile(RATES, SAMPLED, "--network", "network.json") == 2
    answer = capsys.readouterr()
    assert f"network.json: {told}" in answer.err
    assert "measures" not in answer.out


def test_what_cannot_be_written_or_started_is_told_before_anything_is_measured(profile, tmp_path, capsys):
    assert profile(RATES, SAMPLED, "--output", "absent/speeds.yaml") == 2
    told = capsys.readouterr()
    assert f"--output absent/speeds.yaml: {tmp_path / 'absent'} is no folder" in told.err
    assert profile(RATES, SAMPLED, "cluster.rollout.image=rollout.sqsh", "cluster=slurm_pyxis") == 2
    assert "measures" not in told.out + capsys.readouterr().out


def test_a_single_gpu_keeps_the_published_links(profile):
    assert profile(network={}) == 0
    assert read_speeds(Path("speeds.yaml")).in_node == read_speeds().in_node


def test_a_program_that_fails_leaves_no_file(profile, capsys):
    assert profile(None) == 2
    assert "the train environment failed to measure: it broke" in capsys.readouterr().err
    assert not Path("speeds.yaml").exists()
    assert profile(RATES, None) == 2
    assert profile(network=None) == 2
    assert not Path("speeds.yaml").exists()


def test_an_image_is_measured_inside(capsys):
    words = ["profile", "experiment=llama3-8b", "prompts=owner/prompts", "cluster=slurm_pyxis"]
    assert cli.main(words) == 2
    assert "in that image" in capsys.readouterr().err


def test_the_programs_figures_are_those_of_the_file(tmp_path, capsys):
    pytest.importorskip("torch")
    from nemo_sspo.estimate.profiling import training

    training.main(tmp_path)
    found = json.loads(capsys.readouterr().out)
    assert set(RATES) <= set(found)
    assert all(value > 0 for name, value in found.items() if name != "gpu")


def test_ranks_that_torchrun_starts_on_two_nodes_measure_both_kinds_of_link():
    """Here two agents of one machine, as there is no other."""
    pytest.importorskip("torch")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    torchrun = ["-m", "torch.distributed.run", "--rdzv-backend=c10d", f"--rdzv-endpoint={place}", "--rdzv-id=profile"]
    command = [sys.executable, *torchrun, "--nnodes=2", "--nproc-per-node=2", "-m", f"{_PROGRAMS}.network"]
    nodes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [node.communicate(timeout=120)[0] for node in nodes]
    (line,) = "".join(printed).splitlines()
    assert set(json.loads(line)) == {"in_node", "between_nodes"}


def test_ranks_of_this_machine_measure_one_kind():
    pytest.importorskip("torch")
    answer = subprocess.run([sys.executable, "-m", f"{_PROGRAMS}.network"], check=True, capture_output=True, text=True)
    found = json.loads(answer.stdout)
    assert set(found) == {"in_node"}
    assert found["in_node"] > 0


def test_a_link_carries_what_a_rank_does_not_keep_and_the_slowest_rank_counts(monkeypatch):
    pytest.importorskip("megatron.core")
    from nemo_sspo.estimate.profiling import network
    from nemo_sspo.megatron.runtime.forked_ranks import run_forked

    def a_second_more_on_each_rank(step, _device):
        step()
        return 1.0 + int(os.environ["RANK"])

    monkeypatch.setattr(network, "seconds", a_second_more_on_each_rank)
    numbers = 2**20 // 4  # of each rank; three such go out, once as weights and once as gradients, of 2 bytes
    assert run_forked(network.rates, 4, timeout=60) == [{"in_node": 2 * 3 * numbers * 2 / 4.0}] * 4
