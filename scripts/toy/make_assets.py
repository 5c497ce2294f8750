"""Make the quickstart's policy and oracle: `python -m scripts.toy.make_assets --output assets/toy --seed 0`.

Writes policy/ (a Llama directory), pairrm/ (a PairRM directory) and manifest.json. Takes about four minutes on
two cores; a second call with the same code, data and seed does nothing.
"""

import argparse
import hashlib
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from scripts.toy import comparisons, dataset, quality
from scripts.toy.grammar import Request, write_answer
from scripts.toy.oracle import OracleRecipe, measure_oracle, start_oracle, train_oracle
from scripts.toy.policy import Policy, PolicyRecipe, train_policy
from scripts.toy.sampling import Sample, sample
from scripts.toy.tokenizer import train_oracle_tokenizer

MANIFEST = "manifest.json"
ANSWERS_MEASURED = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="python -m scripts.toy.make_assets", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("assets/toy"), help="directory to make (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of both trainings (default: %(default)s)")
    # Matrices this small gain little from a second thread, and lose much where another program wants the core.
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    options = parser.parse_args(arguments)
    digest = assets_digest(options.seed)
    if is_current(options.output, digest):
        print(f"{options.output} is up to date (digest {digest[:12]})")
        return
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    publish(options.output, options.seed, digest)


def assets_digest(seed: int) -> str:
    """SHA-256 over what decides the assets: this package's code, its data, the seed, the library versions."""
    here = Path(__file__).parent
    digest = hashlib.sha256(f"seed {seed} torch {torch.__version__} transformers {transformers.__version__}".encode())
    for file in sorted([*here.glob("*.py"), *dataset.DATA.glob("*.jsonl")]):
        digest.update(f"\n{file.name}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def is_current(output: Path, digest: str) -> bool:
    """Whether `output` is complete and was made from `digest`."""
    try:
        return json.loads((output / MANIFEST).read_text(encoding="utf-8"))["digest"] == digest
    except (OSError, ValueError, KeyError, TypeError):
        return False


def publish(output: Path, seed: int, digest: str) -> None:
    """Make the assets beside `output` and put them in its place when complete."""
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        draft.chmod(0o755)
        facts = {"digest": digest, "seed": seed, **make(draft, seed)}
        (draft / MANIFEST).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        mode = (draft / MANIFEST).stat().st_mode
        for weights in draft.rglob("*.safetensors"):
            weights.chmod(mode)  # safetensors leaves them readable by their owner alone
        _replace_directory(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(json.dumps(facts, indent=2))


def make(folder: Path, seed: int) -> dict[str, object]:
    """Train both models and save them in `folder`; returns the facts for the manifest."""
    split, rows = dataset.split_requests(), dataset.read("instructions.jsonl")
    started = time.monotonic()
    policy_recipe, oracle_recipe = PolicyRecipe(), OracleRecipe()
    policy = train_policy(rows, policy_recipe, seed)
    policy.model.save_pretrained(folder / "policy")
    _save_tokenizer(policy, folder / "policy")
    policy_done = time.monotonic()

    oracle_facts = _make_oracle(folder / "pairrm", policy, oracle_recipe, split, rows, seed)
    return {
        "threads": torch.get_num_threads(),
        "policy": {
            "recipe": policy_recipe._asdict(),
            "parameters": policy.model.num_parameters(),
            "loss_per_epoch": policy.losses,
            "seconds": round(policy_done - started, 1),
        },
        "oracle": {**oracle_facts, "seconds": round(time.monotonic() - policy_done, 1)},
    }


def _make_oracle(
    folder: Path, policy: Policy, recipe: OracleRecipe, split: dataset.Split, rows: list[dict[str, str]], seed: int
) -> dict[str, object]:
    """Train and measure the oracle. Held-out requests are used for measuring only, self-play's not at all."""
    rng = random.Random(seed)
    tokenizer = train_oracle_tokenizer((row[key] for row in rows for key in row), recipe.size.vocabulary)
    texts = [
        (request.text, write_answer(rng, request)) for request in split.supervised for _ in range(recipe.vector_texts)
    ]
    model = start_oracle(tokenizer, texts, recipe, seed)

    asked = split.supervised[: recipe.sampled_requests]
    answers = _sampled_texts(policy, asked, recipe.sampled_answers, seed + 1)
    training = comparisons.written_comparisons(tokenizer, split.supervised, recipe.written, rng)
    training += comparisons.sampled_comparisons(tokenizer, asked, answers, rng)
    losses = train_oracle(model, training, recipe, seed)

    held_out = _sample(policy, split.held_out, ANSWERS_MEASURED, seed + 2)
    agreement = measure_oracle(model, tokenizer, _pairs_of(split.held_out, held_out))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "recipe": {**recipe._asdict(), "size": recipe.size._asdict()},
        "parameters": model.num_parameters(),
        "comparisons": len(training),
        "loss_per_tenth": losses,
        "agreement_on_held_out_samples": agreement._asdict(),
        "base_policy_on_held_out": _describe(policy, split.held_out, held_out),
    }


def _sample(policy: Policy, requests: Sequence[Request], count: int, seed: int) -> list[list[Sample]]:
    return sample(policy.model, policy.tokenizer, [request.text for request in requests], count, seed=seed)


def _sampled_texts(policy: Policy, requests: Sequence[Request], count: int, seed: int) -> list[list[str]]:
    return [[answer.text for answer in group] for group in _sample(policy, requests, count, seed)]


def _pairs_of(requests: Sequence[Request], groups: Sequence[Sequence[Sample]]) -> list[tuple[str, str, str, float]]:
    """(request, first, second, true preference) for every two different answers to a request."""
    pairs = []
    for request, group in zip(requests, groups, strict=True):
        unique = sorted({answer.text for answer in group})
        pairs += [
            (request.text, first, second, quality.true_preference(request.text, first, second))
            for i, first in enumerate(unique)
            for second in unique[:i]
        ]
    return pairs


def _describe(policy: Policy, requests: Sequence[Request], groups: Sequence[Sequence[Sample]]) -> dict[str, float]:
    """What the base policy's answers are like: shares of answers with each trait, means of the numbers."""
    end = policy.tokenizer.eos_token_id
    read = [quality.traits(request, s.text) for request, group in zip(requests, groups, strict=True) for s in group]
    samples = [s for group in groups for s in group]
    means = {name: statistics.fmean(float(getattr(t, name)) for t in read) for name in quality.Traits._fields}
    return {
        **{name: round(value, 3) for name, value in means.items()},
        "quality": round(statistics.fmean(map(quality.quality_of, read)), 3),
        "tokens": round(statistics.fmean(len(s.token_ids) for s in samples), 2),
        "ended": round(statistics.fmean(float(s.token_ids[-1] == end) for s in samples), 4),
    }


def _save_tokenizer(policy: Policy, folder: Path) -> None:
    """With the chat template inside tokenizer_config.json, where every reader looks."""
    policy.tokenizer.save_pretrained(folder, save_jinja_files=False)


def _replace_directory(draft: Path, output: Path) -> None:
    """Rename `draft` to `output`; what was there before is moved aside first, then removed."""
    if not output.exists():
        draft.rename(output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
    output.rename(old / output.name)
    draft.rename(output)
    shutil.rmtree(old)


if __name__ == "__main__":
    sys.exit(main())
