"""Who wins between any number of policies: ``python -m nemo_sspo.stages.evaluation.win_rates_between REQUEST``.

SPPO's Figure 3 over policies of several runs, and models that no run made: all have answered the same questions
(`nemo-sspo benchmark own`). Not a step of the loop. REQUEST is a `WinRatesRequest` as JSON.
"""

import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.fingerprint import fingerprint
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.store import is_published, open_artifact, publish, refuse_changes
from nemo_sspo.config.benchmarks import WinRatesRequest
from nemo_sspo.config.roles import roles
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.protocol import OracleResources, Row
from nemo_sspo.oracle.registry import load_oracle
from nemo_sspo.stages.evaluation.matches import match_win_rates
from nemo_sspo.stages.sampling.judging import both_orders

ANSWERS, WIN_RATES = "model_outputs.json", "win_rates.json"
STAGE = "win_rates_between"


def main(arguments: list[str] | None = None) -> int:
    """Compare; 0 when the win rates are published, 2 when the input is wrong."""
    (text,) = sys.argv[1:] if arguments is None else arguments
    try:
        compare(WinRatesRequest.model_validate_json(text))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return UserError.EXIT_CODE
    return 0


def compare(request: WinRatesRequest) -> None:
    """Publish win_rates.json: a mean over questions for every ordered pair of policies, 1/2 of each with itself.

    Raises:
        UserError: answers are missing or to other questions, or the win rates there were made with other settings.
    """
    final = Path(request.output)
    config = settings(request)
    if is_published(final):
        refuse_changes(open_artifact(final), config, {}, frozenset(roles(request)))
        return
    if request.oracle.kind == "policy_judge":
        raise UserError("oracle=policy_judge judges within a run: choose another oracle for policies of several runs")
    asked, answers = _answers(request)
    pairs = list(combinations(request.answers, 2))
    rows: list[Row] = []
    for one, other in pairs:
        for question, ours, theirs in zip(asked, answers[one], answers[other], strict=True):
            rows += both_orders({"prompt": question, "messages": [{"role": "user", "content": question}]}, ours, theirs)
    layout = RunLayout(final.parent)
    progress = Progress(layout.progress(STAGE))
    progress.update(0, len(rows), unit="comparisons", note="loading the oracle")
    final.parent.mkdir(parents=True, exist_ok=True)
    with publish(final, stage=STAGE, config=config, inputs={}) as draft:
        oracle = load_oracle(request.oracle, OracleResources(layout.judgements(STAGE)))
        found = oracle.compare(rows, lambda done: progress.update(done, len(rows), unit="comparisons"))
        logits_PN12 = found.logits_R.astype(np.float64).reshape(len(pairs), len(asked), 1, 2)
        wins = {pair: match_win_rates(logits, asked) for pair, logits in zip(pairs, logits_PN12, strict=True)}
        record = {"questions": len(asked), "win_rates": _matrix(list(request.answers), wins)}
        (draft.path / WIN_RATES).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        draft.rows = len(pairs)


def settings(request: WinRatesRequest) -> dict[str, Any]:
    """What the win rates depend on."""
    content = {name: fingerprint(Path(folder)) for name, folder in request.answers.items()}
    return {"oracle": request.oracle.model_dump(mode="json"), "content of answers": content}


def _answers(request: WinRatesRequest) -> tuple[list[str], dict[str, list[str]]]:
    """The questions, and each policy's answers in their order."""
    asked: list[str] = []
    answers: dict[str, list[str]] = {}
    for name, folder in request.answers.items():
        rows = json.loads(open_artifact(Path(folder)).file(ANSWERS).read_bytes())
        questions = [row["instruction"] for row in rows]
        if (asked := asked or questions) != questions:
            raise UserError(f"{folder}: {name} answered other questions than {next(iter(request.answers))}")
        answers[name] = [row["output"] for row in rows]
    return asked, answers


def _matrix(names: list[str], wins: dict[tuple[str, str], NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    means = {pair: float(wins_N.mean()) for pair, wins_N in wins.items()}
    both = means | {(other, one): 1 - mean for (one, other), mean in means.items()}
    return {one: {other: both.get((one, other), 0.5) for other in names} for one in names}


if __name__ == "__main__":
    sys.exit(main())
