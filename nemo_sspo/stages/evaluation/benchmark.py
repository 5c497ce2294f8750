"""Answer a public benchmark with a policy: ``python -m nemo_sspo.stages.evaluation.benchmark REQUEST``.

Not a step of the loop: it reads a policy of a run, or a model that no run made, and publishes atomically. It
skips published answers and refuses those made with other settings. REQUEST is a `BenchmarkRequest` as JSON.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nemo_sspo import __version__
from nemo_sspo.artifacts.facts.benchmarks import AnswerFacts
from nemo_sspo.artifacts.fingerprint import fingerprint
from nemo_sspo.artifacts.layout import HF_MODEL, TOKENS, RunLayout
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.store import Artifact, Draft, is_published, open_artifact, publish, refuse_changes
from nemo_sspo.artifacts.token_record import read_token_record
from nemo_sspo.config.benchmarks import Answerer, BenchmarkRequest, of_run
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.public_benchmarks.protocol import Answer, Benchmark, Question, Writing
from nemo_sspo.public_benchmarks.registry import BENCHMARKS
from nemo_sspo.stages.runner.settings import knob_names

GENERATION = "generation.json"
"""What the answers were made from and how, beside them."""


def main(arguments: list[str] | None = None) -> int:
    """Answer a request; 0 when the answers are published, 2 when its input is wrong."""
    (text,) = sys.argv[1:] if arguments is None else arguments
    request = BenchmarkRequest.model_validate_json(text)
    try:
        answer(request)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return UserError.EXIT_CODE
    return 0


def answer(request: BenchmarkRequest) -> None:
    """Generate and publish the answers.

    Raises:
        UserError: the questions, the policy or the published answers are not what they should be.
    """
    layout, who = RunLayout(Path(request.run)), answerer(request)
    config, inputs = settings(request, who), policy_artifact(request, layout)
    final = Path(request.output)
    if is_published(final):
        refuse_changes(open_artifact(final), config, inputs, knob_names(who))
        return
    benchmark = BENCHMARKS[request.benchmark]
    questions = benchmark.questions(Path(request.questions))
    final.parent.mkdir(parents=True, exist_ok=True)
    stage = f"benchmark_{request.benchmark.replace('-', '_')}"
    with publish(final, stage=stage, iteration=request.iteration, config=config, inputs=inputs) as draft:
        progress = Progress(layout.progress(progress_name(request)))
        _fill(draft, request, who, benchmark, questions, inputs, progress)


def answerer(request: BenchmarkRequest) -> Answerer:
    """The model of the request, or the policies of its run."""
    if request.model is not None:
        return request.model
    return of_run(Experiment.model_validate_json(RunLayout(Path(request.run)).experiment.read_bytes()))


def settings(request: BenchmarkRequest, who: Answerer) -> dict[str, Any]:
    """What the answers depend on, the engine's knobs included."""
    resolved = request.model_dump(mode="json", exclude={"run", "questions", "output", "model"})
    engine = who.engine.model_dump(mode="json")
    policy = {"policy": who.policy} if request.iteration == 0 else {}
    content = {"content of questions": fingerprint(Path(request.questions))}
    if request.model is not None and Path(who.policy).is_dir():
        content["content of policy"] = fingerprint(Path(who.policy))
    template = {"template_arguments": who.template_arguments}
    return {**resolved, "engine": engine, "seed": who.seed, **policy, **content, **template}


def policy_artifact(request: BenchmarkRequest, layout: RunLayout) -> dict[str, list[Artifact]]:
    """The export that answers; the base policy is no artifact, so that the run's prompts stand for the run.

    A model that no run made has neither.
    """
    if request.model is not None:
        return {"policy": [], "prompts": []}
    prompts = [open_artifact(layout.artifact("prepare_prompts"))]
    if request.iteration == 0:
        return {"policy": [], "prompts": prompts}
    return {"policy": [open_artifact(layout.artifact("export", request.iteration))], "prompts": prompts}


def progress_name(request: BenchmarkRequest) -> str:
    """Name of the progress and log files."""
    return f"iter_{request.iteration}.benchmark_{request.benchmark}"


def seed_of(request: BenchmarkRequest, who: Answerer) -> int:
    """31 bits of the seed, the benchmark and the iteration."""
    text = f"{who.seed}/{request.benchmark}/{request.iteration}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _fill(
    draft: Draft,
    request: BenchmarkRequest,
    who: Answerer,
    benchmark: Benchmark,
    questions: Sequence[Question],
    inputs: dict[str, list[Artifact]],
    progress: Progress,
) -> None:
    """Write the answers and what they were made with."""
    exported = next(iter(inputs["policy"]), None)
    policy = str(exported.file(HF_MODEL)) if exported else who.policy
    turns = sum(len(question.turns) for question in questions)
    progress.update(0, turns, unit="turns", note="loading the policy")
    started = time.monotonic()
    answers = _generate(
        request, who, policy, inputs["prompts"], questions, lambda done: progress.update(done, turns, unit="turns")
    )
    draft.timings["generation_seconds"] = time.monotonic() - started

    counter, counted_in = _token_counter(benchmark.tokenizer, policy)
    created = _created(policy, *inputs["policy"], *inputs["prompts"])
    text = benchmark.write(questions, answers, Writing(request.model_name, created, counter))
    (draft.path / benchmark.answers_file(request.model_name)).write_text(text, encoding="utf-8")
    reasons = [reply.finish_reason for replies in answers for reply in replies]
    draft.rows = len(questions)
    draft.facts = AnswerFacts(
        questions=len(questions),
        turns=turns,
        unfinished=reasons.count("length"),
        no_room=reasons.count("no room"),
        empty=sum(not reply.text.strip() for replies in answers for reply in replies),
    )
    record = {
        "benchmark": request.benchmark,
        "model_name": request.model_name,
        "iteration": request.iteration,
        "policy": f"export of iteration {request.iteration}" if exported else policy,
        "export_digest": exported.manifest.digest if exported else None,
        "questions": {"file": Path(request.questions).name, "digest": fingerprint(Path(request.questions))},
        "sampling": request.sampling.model_dump(mode="json"),
        "seed": seed_of(request, who),
        "engine": who.engine.model_dump(mode="json"),
        "template_arguments": who.template_arguments,
        "tokens_counted_by": counted_in,
        "nemo_sspo": __version__,
    }
    (draft.path / GENERATION).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _generate(
    request: BenchmarkRequest,
    who: Answerer,
    policy: str,
    prompts: Sequence[Artifact],
    questions: Sequence[Question],
    on_progress: Callable[[int], None],
) -> list[list[Answer]]:
    from nemo_sspo.rollout.dialogue import Dialogue, hold_dialogues, longest_dialogue
    from nemo_sspo.rollout.tokenizer import (
        context_tokens,
        load_policy_tokenizer,
        refuse_other_tokens,
        stop_token_ids,
    )
    from nemo_sspo.rollout.vllm_engine import VllmEngine

    sampling = request.sampling
    tokenizer = load_policy_tokenizer(policy, who.template_arguments)
    for artifact in prompts:  # those of its run
        refuse_other_tokens(tokenizer, read_token_record(artifact.file(TOKENS)), policy, artifact)
    dialogues = [Dialogue(question.turns, sampling.temperature_for(question.category)) for question in questions]
    longest, firsts = longest_dialogue(tokenizer, dialogues, sampling.max_tokens)
    context = min(longest, context_tokens(policy) or longest)
    for question, tokens in zip(questions, firsts, strict=True):
        if tokens >= context:
            raise UserError(
                f"{request.questions} row {question.row}: {tokens} tokens do not fit the policy's context of {context}"
            )
    engine = VllmEngine(
        policy,
        who.engine,
        seed=seed_of(request, who),
        max_model_len=context,
        stop_token_ids=stop_token_ids(policy, tokenizer),
    )
    replies = hold_dialogues(
        engine,
        tokenizer,
        dialogues,
        top_p=sampling.top_p,
        max_tokens=min(sampling.max_tokens, context),
        max_model_len=context,
        on_progress=on_progress,
    )
    return [[Answer(reply.text, reply.finish_reason) for reply in turns] for turns in replies]


def _created(policy: str, *artifacts: Artifact) -> float:
    """Unix time of the artifact that the policy is, or of the run's prompts; of another model's files, 0 of a hub's."""
    if artifacts:
        return datetime.fromisoformat(artifacts[0].manifest.created_at).timestamp()
    config = Path(policy) / "config.json"
    return config.stat().st_mtime if config.is_file() else 0.0


def _token_counter(encoding: str | None, policy: str) -> tuple[Callable[[str], int], str | None]:
    """The benchmark's own token counter, or the policy's where tiktoken has no copy of the vocabulary at hand."""
    if encoding is None:
        return len, None
    try:
        import tiktoken

        own = tiktoken.get_encoding(encoding)
        return lambda text: len(own.encode(text, disallowed_special=())), f"tiktoken {encoding}"
    except Exception as error:  # tiktoken raises of its HTTP library's kinds
        print(f"tiktoken {encoding} cannot be loaded ({type(error).__name__}): counting the policy's own tokens")
    from nemo_sspo.rollout.tokenizer import load_policy_tokenizer

    tokenizer = load_policy_tokenizer(policy)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False)), "the policy's tokenizer"


if __name__ == "__main__":
    sys.exit(main())
