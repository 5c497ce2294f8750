"""The data plane from prompts to pairs and an evaluation, with real vLLM, a tiny PairRM and the real MiniLM."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("vllm")
pytest.importorskip("sentence_transformers")

from nemo_sspo.artifacts.layout import HF_MODEL, RunLayout
from nemo_sspo.artifacts.store import publish
from nemo_sspo.artifacts.tables import PAIRS, ROLLOUTS
from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.config.engines import VllmEngine
from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.config.stages import Data, Rollout
from tests.oracle.tiny_pairrm import make_checkpoints
from tests.stages import runs

SEEDS_OF_THOUGHT = ["list", "town", "fox", "sort", "Python", "weather", "game", "bread"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, policy: Path):
    root = tmp_path_factory.mktemp("chain")
    prompts = [{"prompt": f"Tell me about {word}."} for word in SEEDS_OF_THOUGHT]
    (root / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    return runs.experiment(
        root,
        policy=str(policy),
        prompts=str(root / "prompts.jsonl"),
        data=Data(held_out_count=3),
        rollout=Rollout(samples_per_prompt=3, max_response_tokens=24, shards=2),
        engine=VllmEngine(max_num_seqs=32),
        oracle=PairRMOracle(path=str(make_checkpoints(root)["hf"])),
        encoder=SentenceEncoder(),
    )


def test_prompts_become_pairs_and_policies_are_compared(settings) -> None:
    assert runs.run_stage(settings, "prepare_prompts", 0).manifest.rows == 8
    for shard in range(2):
        for stage in ("rollout", "score", "embed"):
            runs.run_stage(settings, stage, shard=shard)
    pairs = runs.run_stage(settings, "build_pairs")
    counts = pairs.manifest.counts
    assert counts["prompts"] == 5
    assert counts["pairs"] + sum(n for name, n in counts.items() if name.startswith("dropped_")) == 5
    layout = RunLayout(settings.run_dir)
    sampled = {
        response["response_id"]: response["token_ids"]
        for shard in range(2)
        for row in ROLLOUTS.read(layout.artifact("rollout", 1, shard)).to_pylist()
        for response in row["responses"]
    }
    for pair in PAIRS.read(pairs.path).to_pylist():
        assert pair["chosen_token_ids"] == sampled[pair["chosen_id"]]
        assert pair["rejected_token_ids"] == sampled[pair["rejected_id"]]
        assert pair["margin_before"] > 0
        assert 0 <= pair["margin_after"] <= pair["margin_before"]

    exported = layout.artifact("export", 1)
    with publish(exported, stage="export", iteration=1, config={}, inputs={}) as draft:
        shutil.copytree(settings.policy, draft.path / HF_MODEL)
    for policy in range(2):
        runs.run_stage(settings, "rollout_held_out", policy)
    counts = runs.run_stage(settings, "evaluate").manifest.counts
    assert counts["prompts"] == 3
    assert counts["win_vs_base_low"] <= counts["win_vs_base"] <= counts["win_vs_base_high"]
