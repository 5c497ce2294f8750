"""An iteration of many prompts with long responses, made of tables in the real schemas."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.tables import DROPPED, PAIRS, RESPONSE, ROLLOUTS, SCORES
from nemo_sspo.config.experiment import Experiment
from tests.report.made_run import put
from tests.stages.runs import experiment

K = 5
_WORDS = "the quick brown fox jumps over the lazy dog and rests beneath an old oak tree until morning comes again"


def large_run(runs: Path, prompts: int, words: int = 400, shards: int = 4) -> Experiment:
    """One iteration: responses of `words` words, scores and pairs; every thousandth prompt has no pair."""
    settings = experiment(runs, name="large")
    layout = RunLayout(settings.run_dir)
    layout.root.mkdir(parents=True, exist_ok=True)
    layout.experiment.write_text(settings.model_dump_json())
    generator = np.random.default_rng(0)
    ids = np.array(sorted(content_id(str(n)) for n in range(prompts)))
    for shard, own in enumerate(np.array_split(ids, shards)):
        counts = {"prompts": len(own), "responses": K * len(own), "tokens": 500 * K * len(own)}
        put(layout, "rollout", 1, shard, tables={ROLLOUTS: _rollouts(own, words)}, **counts)
        put(layout, "score", 1, shard, tables={SCORES: _scores(own, generator)}, rows=len(own), order_bias=0.5)
    paired = np.arange(prompts) % 1000 != 0
    dropped = DROPPED.of({"prompt_id": ids[~paired], "reason": ["tie"] * int((~paired).sum())})
    pairs = _pairs(ids[paired], generator)
    names = {"similarity_mean": "similarity", "margin_before": "margin_before", "margin_after": "margin_after"}
    means = {name: pc.mean(pairs.column(column)).as_py() for name, column in names.items()}
    counts = {"pairs": len(pairs), "dropped_tie": len(dropped), **means}
    put(layout, "build_pairs", 1, tables={PAIRS: pairs, DROPPED: dropped}, **counts)
    return settings


def _rollouts(ids: np.ndarray, words: int) -> pa.Table:
    text = " ".join((_WORDS.split() * (words // 20 + 1))[:words])
    total = K * len(ids)
    empty = pa.ListArray.from_arrays(np.zeros(total + 1, np.int32), pa.array([], pa.int32()))
    fields = {
        "response_id": [f"{prompt}{k}" for prompt in ids for k in range(K)],
        "text": [f"{number} {text}" for number in range(total)],
        "token_ids": empty,
        "logprobs": pa.ListArray.from_arrays(np.zeros(total + 1, np.int32), pa.array([], pa.float32())),
        "finish_reason": ["stop"] * total,
    }
    arrays = [
        pa.array(fields[field.name]) if isinstance(fields[field.name], list) else fields[field.name]
        for field in RESPONSE
    ]
    responses = pa.StructArray.from_arrays(arrays, fields=list(RESPONSE))
    columns = {
        "prompt_id": ids,
        "prompt": [f"What about {prompt}?" for prompt in ids],
        "messages": [[{"role": "user", "content": f"What about {prompt}?"}] for prompt in ids],
        "prompt_token_ids": empty.slice(0, len(ids)),
        "responses": pa.ListArray.from_arrays(np.arange(0, total + 1, K, dtype=np.int32), responses),
    }
    return ROLLOUTS.of(columns)


def _scores(ids: np.ndarray, generator: np.random.Generator) -> pa.Table:
    logits = generator.normal(size=(len(ids), K, K)).astype(np.float32)
    columns = {
        "prompt_id": ids,
        "response_ids": [[f"{prompt}{k}" for k in range(K)] for prompt in ids],
        "logits": logits.tolist(),
        "truncated_rows": np.zeros(len(ids), np.int32),
    }
    return SCORES.of(columns)


def _pairs(ids: np.ndarray, generator: np.random.Generator) -> pa.Table:
    similarity, p_chosen = generator.random(len(ids)), 0.5 + generator.random(len(ids)) / 2
    p_rejected = 1 - p_chosen
    targets = 0.5 + (1 - similarity) * (p_chosen - 0.5)
    nothing = [[]] * len(ids)
    columns = {
        "pair_id": ids,
        "prompt_id": ids,
        "prompt_token_ids": nothing,
        "chosen_id": [f"{prompt}0" for prompt in ids],
        "rejected_id": [f"{prompt}1" for prompt in ids],
        "chosen_token_ids": nothing,
        "rejected_token_ids": nothing,
        "p_chosen": p_chosen,
        "p_rejected": p_rejected,
        "similarity": similarity,
        "target_chosen": targets,
        "target_rejected": 1 - targets,
        "target_pair": targets,
        "margin_before": p_chosen - p_rejected,
        "margin_after": 2 * targets - 1,
    }
    return PAIRS.of(columns)
