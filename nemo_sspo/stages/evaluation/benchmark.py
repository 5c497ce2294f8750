"""Answer a public benchmark with a run's policy: ``python -m nemo_sspo.stages.evaluation.benchmark REQUEST``.

Not a step of the loop: it reads an existing policy and publishes atomically beside the run. It skips published
answers and refuses those made with other settings. REQUEST is a `BenchmarkRequest` as JSON.
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
from nemo_sspo.config.benchmarks import BenchmarkRequest
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
    layout = RunLayout(Path(request.run))
    experiment = Experiment.model_validate_json(layout.experiment.read_bytes())
    config, inputs = settings(request, experiment), policy_artifact(request, layout)
    final = Path(request.output)
    if is_published(final):
        refuse_changes(open_artifact(final), config, inputs, knob_names(experiment))
        return
    benchmark = BENCHMARKS[request.benchmark]
    questions = benchmark.questions(Path(request.questions))
    final.parent.mkdir(parents=True, exist_ok=True)
    stage = f"benchmark_{request.benchmark.replace('-', '_')}"
    with publish(final, stage=stage, iteration=request.iteration, config=config, inputs=inputs) as draft:
        progress = Progress(layout.progress(progress_name(request)))
        _fill(
            draft,
            request,
            experiment,
            benchmark,
            questions,
            inputs["policy" if inputs["policy"] else "prompts"][0],
            inputs["prompts"][0],
            progress,
        )


def settings(request: BenchmarkRequest, experiment: Experiment) -> dict[str, Any]:
    """What the answers depend on, the engine's knobs included."""
    resolved = request.model_dump(mode="json", exclude={"run", "questions", "output"})
    engine = experiment.engine.model_dump(mode="json")
    policy = {"policy": experiment.policy} if request.iteration == 0 else {}
    content = {"content of questions": fingerprint(Path(request.questions))}
    template = {"template_arguments": experiment.data.template_arguments}
    return {**resolved, "engine": engine, "seed": experiment.seed, **policy, **content, **template}


def policy_artifact(request: BenchmarkRequest, layout: RunLayout) -> dict[str, list[Artifact]]:
    """The export that answers; the base policy is no artifact, so that the run's prompts stand for the run."""
    prompts = [open_artifact(layout.artifact("prepare_prompts"))]
    if request.iteration == 0:
        return {"policy": [], "prompts": prompts}
    return {"policy": [open_artifact(layout.artifact("export", request.iteration))], "prompts": prompts}


def progress_name(request: BenchmarkRequest) -> str:
    """Name of the progress and log files."""
    return f"iter_{request.iteration}.benchmark_{request.benchmark}"


def seed_of(request: BenchmarkRequest, experiment: Experiment) -> int:
    """31 bits of the run's seed, the benchmark and the iteration."""
    text = f"{experiment.seed}/{request.benchmark}/{request.iteration}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _fill(
    draft: Draft,
    request: BenchmarkRequest,
    experiment: Experiment,
    benchmark: Benchmark,
    questions: Sequence[Question],
    origin: Artifact,
    prompts: Artifact,
    progress: Progress,
) -> None:
    """Write the answers and what they were made with."""
    policy = str(origin.file(HF_MODEL)) if request.iteration else experiment.policy
    turns = sum(len(question.turns) for question in questions)
    progress.update(0, turns, unit="turns", note="loading the policy")
    started = time.monotonic()
    answers = _generate(
        request, experiment, policy, prompts, questions, lambda done: progress.update(done, turns, unit="turns")
    )
    draft.timings["generation_seconds"] = time.monotonic() - started

    counter, counted_in = _token_counter(benchmark.tokenizer, policy)
    created = datetime.fromisoformat(origin.manifest.created_at).timestamp()
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
        "policy": policy if request.iteration == 0 else f"export of iteration {request.iteration}",
        "export_digest": origin.manifest.digest if request.iteration else None,
        "questions": {"file": Path(request.questions).name, "digest": fingerprint(Path(request.questions))},
        "sampling": request.sampling.model_dump(mode="json"),
        "seed": seed_of(request, experiment),
        "engine": experiment.engine.model_dump(mode="json"),
        "template_arguments": experiment.data.template_arguments,
        "tokens_counted_by": counted_in,
        "nemo_sspo": __version__,
    }
    (draft.path / GENERATION).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _generate(
    request: BenchmarkRequest,
    experiment: Experiment,
    policy: str,
    prompts: Artifact,
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
    tokenizer = load_policy_tokenizer(policy, experiment.data.template_arguments)
    refuse_other_tokens(tokenizer, read_token_record(prompts.file(TOKENS)), policy, prompts)
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
        experiment.engine,
        seed=seed_of(request, experiment),
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
