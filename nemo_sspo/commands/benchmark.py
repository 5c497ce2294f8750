"""``nemo-sspo benchmark NAME RUN``: a run's policy, or a model of another's, before a public benchmark."""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nemo_sspo.artifacts.facts.benchmarks import AnswerFacts
from nemo_sspo.artifacts.store import open_artifact
from nemo_sspo.commands import lm_eval
from nemo_sspo.commands.benchmark_options import add_run, output_of, say
from nemo_sspo.config.benchmarks import SAMPLING, AnswerSampling, BenchmarkRequest
from nemo_sspo.errors import UserError
from nemo_sspo.public_benchmarks.alpaca_eval import ANNOTATOR, AlpacaEval
from nemo_sspo.public_benchmarks.protocol import Judge
from nemo_sspo.words import counted

if TYPE_CHECKING:
    from nemo_sspo.launch.benchmark import Examinee


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command and one sub-command per benchmark."""
    text = "let a run's policy answer a public benchmark, and have it judged where its tool is there"
    names = commands.add_parser("benchmark", help=text, description=f"{text}.").add_subparsers(
        required=True, metavar="name"
    )
    for name, usual in SAMPLING.items():
        if name == "own":
            text, asked = "answer questions of your own", "JSON or JSONL with `prompt` (and `category`)"
        else:
            text, asked = (
                f"write the answers as {name}'s own tool does",
                "the questions file that the benchmark publishes",
            )
        sub = names.add_parser(name, help=text)
        add_run(sub)
        sub.add_argument("--questions", type=Path, required=True, help=asked)
        sub.add_argument("--model-name", help="what the judge shall call the policy (default: run and iteration)")
        sub.add_argument("--temperature", type=float, help=f"for every question (default: {_temperatures(usual)})")
        sub.add_argument("--max-tokens", type=int, help=f"longest answer to a turn (default: {usual.max_tokens})")
        sub.add_argument("--tool", type=Path, help="checkout of the benchmark's judge; it runs where its key is set")
        if name == "alpaca-eval":
            sub.add_argument("--annotator", help=f"settings of alpaca_eval's judge (default: {ANNOTATOR})")
        sub.set_defaults(command=answer_and_judge, benchmark=name, overrides=[], annotator=None)
    lm_eval.register(names)


def answer_and_judge(options: argparse.Namespace) -> int:
    """Publish the answers, then run the judge or print how."""
    from nemo_sspo.launch.benchmark import examinee

    asked = examinee(options.run, options.iteration, options.overrides)
    return have_judged(_request(options, asked), asked, options.python, options.tool, options.annotator)


def have_judged(
    request: BenchmarkRequest,
    asked: "Examinee",
    python: str | None = None,
    tool: Path | None = None,
    annotator: str | None = None,
) -> int:
    """The same of a request: 0, or 1 and 2 where generation or judge failed."""
    from nemo_sspo.launch.benchmark import GenerationFailed, generate, is_answered, rollout_python
    from nemo_sspo.public_benchmarks.registry import BENCHMARKS

    benchmark = BENCHMARKS[request.benchmark] if annotator is None else AlpacaEval(annotator)
    console = Console()
    questions = benchmark.questions(Path(request.questions))
    python = rollout_python(asked.cluster, python)
    if not is_answered(request, asked.who):
        try:
            with console.status(f"{request.model_name} answers {counted(len(questions), 'question')}") as status:
                generate(
                    request,
                    asked.cluster,
                    python,
                    lambda state: status.update(f"{state['done']}/{state['total']} {state['unit']} {state['note']}"),
                )
        except GenerationFailed as failure:
            print(failure, file=sys.stderr)
            return UserError.EXIT_CODE if failure.code == UserError.EXIT_CODE else 1
    answers = Path(request.output) / benchmark.answers_file(request.model_name)
    facts = open_artifact(Path(request.output)).facts(AnswerFacts)
    say(console, str(answers))
    say(console, ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in facts if count is not None))
    return _judge(console, benchmark.judge(questions, answers.absolute(), request.model_name, tool))


def _request(options: argparse.Namespace, asked: "Examinee") -> BenchmarkRequest:
    from pydantic import ValidationError

    changes: dict[str, Any] = {}
    if options.temperature is not None:
        changes |= {"temperature": options.temperature, "temperature_of_category": {}}
    if options.max_tokens is not None:
        changes["max_tokens"] = options.max_tokens
    try:
        return BenchmarkRequest(
            run=str(asked.root),
            iteration=asked.iteration,
            model=None if asked.of_run else asked.who,
            benchmark=options.benchmark,
            questions=str(options.questions),
            output=str(output_of(options.output, asked, options.benchmark)),
            model_name=options.model_name or asked.name,
            sampling=AnswerSampling.model_validate(SAMPLING[options.benchmark].model_dump() | changes),
        )
    except ValidationError as error:
        first = error.errors()[0]
        flag = str(first["loc"][-1]).replace("_", "-")
        raise UserError(f"--{flag} {first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def _temperatures(sampling: AnswerSampling) -> str:
    of_categories = "; ".join(f"{name} {value:g}" for name, value in sampling.temperature_of_category.items())
    return of_categories or f"{sampling.temperature:g}"


def _judge(console: Console, judge: Judge) -> int:
    """Run the judge where its tool and its key are there; print how to otherwise."""
    if judge.installed and os.environ.get(judge.key):
        return _run_judge(console, judge)
    if not judge.commands:
        say(console, f"not judged: it needs {judge.tool}")
        return 0
    missing = f"{judge.key} is not set" if judge.installed else f"it needs {judge.tool} and {judge.key}"
    say(console, f"not judged here: {missing}. The commands:")
    if judge.answers:
        source, target = judge.answers
        say(console, f"  cp {shlex.quote(source)} {shlex.quote(f'{judge.directory}/{target}')}")
    if judge.settings:
        original, changed = judge.settings
        say(console, f"  (write {changed}: a copy of {judge.directory}/{original} whose model_list is [{judge.model}])")
    if judge.directory:
        say(console, f"  cd {shlex.quote(judge.directory)}")
    for command in judge.commands:
        say(console, f"  {shlex.join(command)}")
    return 0


def _run_judge(console: Console, judge: Judge) -> int:
    if judge.answers:
        source, target = Path(judge.answers[0]), Path(judge.directory or ".") / judge.answers[1]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    if judge.settings:
        from omegaconf import OmegaConf

        given = OmegaConf.load(Path(judge.directory or ".") / judge.settings[0])
        OmegaConf.save(OmegaConf.merge(given, {"model_list": [judge.model]}), judge.settings[1])
    for command in judge.commands:
        say(console, shlex.join(command))
        # FastChat asks to press Enter before it spends anything.
        code = subprocess.run(command, cwd=judge.directory, input=b"\n").returncode
        if code:
            print(
                f"error: {command[0]} {command[1]} ended with exit code {code}; the answers are kept", file=sys.stderr
            )
            return 1
    return 0
