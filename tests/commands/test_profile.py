"""``nemo-sspo profile``, with a stand-in for both environments' interpreters."""

import json
import sys
from pathlib import Path

import pytest

from nemo_sspo import cli
from nemo_sspo.estimate.speeds import read_speeds

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
SAMPLED = {"tokens_per_second": 1000.0, "start": 60.0}
LLAMA_8B = 8_030_261_248


@pytest.fixture
def profile(tmp_path: Path, monkeypatch):
    """Run it, where programs answer `rates` and `sampled`; the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nemo_sspo.commands.environment.environment_problem", lambda *_: None)  # it has no packages

    def run(rates=RATES, sampled=SAMPLED, *words: str) -> int:
        answers = {"training": rates, "generation": sampled}
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
    assert found.in_node == published.in_node
    assert found.sources["in_node"].startswith("published: ")
    assert found.sources["storage"] == "measured by nemo-sspo profile"
    capsys.readouterr()
    plan = ["plan", "experiment=llama3-8b", "prompts=owner/prompts", "--prompts-count", "9", "--estimate", "--json"]
    assert cli.main([*plan, "--speeds", "speeds.yaml"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate_for"]["gpu"] == "Some GPU"


def test_an_engine_over_several_gpus_counts_for_each(profile):
    assert profile(RATES, SAMPLED, "engine.tensor_parallel=4") == 0
    assert read_speeds(Path("speeds.yaml")).generation.bf16 == pytest.approx(250.0 * LLAMA_8B)


def test_a_program_that_fails_leaves_no_file(profile, capsys):
    assert profile(None) == 2
    assert "the train environment failed to measure: it broke" in capsys.readouterr().err
    assert not Path("speeds.yaml").exists()
    assert profile(RATES, None) == 2
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
