"""A language model behind an OpenAI-compatible endpoint as the oracle (LLM-as-a-judge, arXiv 2306.05685).

Each order of a pair is a question of its own, asked at temperature 0. Attempts at one request (429 with Retry-After,
5xx, timeouts) are the openai client's own: exponential back-off with jitter. Every answer goes to the journal at once;
equal questions are asked once; equal responses are a tie that costs nothing.
"""

import asyncio
import json
import math
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import openai

from nemo_sspo.config.oracles import LlmJudgeOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.deduplicated import Deduplicated
from nemo_sspo.oracle.judge.endpoint import NO_KEY, api_key, check_endpoint
from nemo_sspo.oracle.judge.journal import Journal, Judgement, Spending, question_key
from nemo_sspo.oracle.judge.ledger import Ledger
from nemo_sspo.oracle.judge.question import cut_row, first_token_logit, parse_verdict, question, read_template
from nemo_sspo.oracle.judge.ties import count_ties
from nemo_sspo.oracle.protocol import OnProgress, OracleResources, Preferences, Row, silent

_TOP_LOGPROBS = 20
_BYTES_PER_TOKEN = 4
"""Rough size of a token, for the plan and for endpoints that do not say what they used."""
_GARBLED_WAIT_SECONDS = 0.5


class LlmJudge:
    """An endpoint behind the `PreferenceOracle` protocol."""

    def __init__(self, settings: LlmJudgeOracle, resources: OracleResources | None = None) -> None:
        """Read template and key; raises a UserError where either is missing."""
        check_endpoint(settings)
        self._settings = settings
        self._template = read_template(settings.template)
        self._key = api_key(settings)
        self._journal = Journal(resources.journal if resources else None)
        self._ledger = Ledger(resources.journal if resources else None, settings)
        self._rows_to_come = resources.rows if resources else 0
        self._asked = {"template": self._template} | settings.model_dump(
            include={"endpoint", "model", "logprobs", "verdict_logit", "max_answer_tokens", "extra"}
        )

    def compare(self, rows: Sequence[Row], on_progress: OnProgress = silent) -> Preferences:
        """See `PreferenceOracle.compare`.

        Raises:
            UserError: a cap was or would be passed, or the endpoint refuses; what was answered is kept.
        """
        limit = self._settings.text_max_characters
        cut = [cut_row(row, limit) for row in rows]
        unique = Deduplicated([row for row in cut if row.first != row.second])
        keys = [question_key(self._asked | row._asdict()) for row in unique.items]
        with self._journal as journal:
            self._ledger.open(journal.spent)
            pending = [pair for pair in zip(keys, unique.items, strict=True) if not self._is_answered(pair[0])]
            self._rows_to_come = max(0, self._rows_to_come - len(rows))
            if pending:
                self._refuse_plan([row for _, row in pending], self._rows_to_come * len(unique) / len(rows))
                self._rows_to_come = 0  # pending questions continue up to the cap: their paid answers are kept
                progress = partial(_report, on_progress, len(rows), len(unique))
                asyncio.run(self._ask_all(pending, lambda done: progress(len(unique) - len(pending) + done)))
            judgements = [journal[key] for key in keys]
        on_progress(len(rows))
        logits_U = np.array([judgement.logit for judgement in judgements] or [0.0], dtype=np.float32)
        asked_R = np.array([row.first != row.second for row in cut], dtype=np.bool_)
        logits_R = np.zeros(len(rows), dtype=np.float32)
        logits_R[asked_R] = logits_U[unique.places([row for row in cut if row.first != row.second])]
        truncated_R = np.array([max(map(len, row[:3])) > limit for row in rows], dtype=np.bool_)
        facts = _facts(judgements) | count_ties(cut, logits_R)
        return Preferences(logits_R, truncated_R, len(set(rows)), facts)

    def _is_answered(self, key: str) -> bool:
        """Whether the journal has an answer that these settings accept."""
        strict = self._settings.unparsable == "error"
        return key in self._journal and not (strict and self._journal[key].unparsed)

    def _refuse_plan(self, pending: Sequence[Row], to_come: float) -> None:
        """Refuse work that would exceed a cap before the first request; tokens are estimated from the texts.

        The `to_come` questions of the step's later calls are assumed to be like the pending ones.
        """
        factor = 1 + to_come / len(pending)
        cost = sum((self._estimate(row) for row in pending), start=Spending()).times(factor)
        if over := self._ledger.over(cost):
            raise UserError(
                f"oracle: with {cost.requests} more questions the run would pay for {over}; raise the cap, or score "
                "fewer prompts or responses"
            )

    def _estimate(self, row: Row) -> Spending:
        """Likely cost of a question, whose answer is one letter."""
        return Spending(1, len(question(self._template, row).encode()) // _BYTES_PER_TOKEN, 1)

    async def _ask_all(self, pending: Sequence[tuple[str, Row]], on_answer: OnProgress) -> None:
        """Ask with bounded concurrency. After a failure pending answers are awaited and kept; nothing more is asked."""
        failures: list[UserError] = []
        questions, answers = iter(pending), count(1)

        async def work(client: openai.AsyncOpenAI) -> None:
            for key, row in questions:
                if failures:
                    return
                try:
                    await self._ask_and_keep(client, key, row)
                    on_answer(next(answers))
                except UserError as failure:
                    failures.append(failure)

        settings = self._settings
        async with openai.AsyncOpenAI(
            api_key=self._key,
            base_url=settings.endpoint,
            max_retries=settings.retries,
            timeout=settings.timeout_seconds,
        ) as client:
            await asyncio.gather(*(work(client) for _ in range(min(settings.concurrency, len(pending)))))
        if failures:
            raise failures[0]

    async def _ask_and_keep(self, client: openai.AsyncOpenAI, key: str, row: Row) -> None:
        """Ask one question that no cap forbids; its answer is in the journal when this returns."""
        likely, paid = self._estimate(row), Spending()
        if over := self._ledger.enter(likely):
            raise UserError(
                f"oracle: stopped before the run would have paid for {over}; what was answered is kept: raise the cap "
                "and run again"
            )
        try:
            judgement = await self._ask(client, row)
            self._journal.append(key, judgement)
            paid = judgement.cost
        finally:
            self._ledger.correct(likely, paid)

    async def _ask(self, client: openai.AsyncOpenAI, row: Row) -> Judgement:
        text = question(self._template, row)
        for attempt in range(self._settings.retries + 1):
            body = await self._request(client, text)
            try:
                return self._judgement(json.loads(body), text, row)
            except (
                ValueError,
                KeyError,
                IndexError,
                TypeError,
                AttributeError,
                RecursionError,
            ):  # not the JSON of a chat completion
                await asyncio.sleep(_GARBLED_WAIT_SECONDS * 2 ** min(attempt, 4))
        raise UserError(
            f"oracle: {self._settings.endpoint} answered {self._settings.retries + 1} times with something other than "
            "a chat completion; is it an OpenAI-compatible endpoint?"
        )

    async def _request(self, client: openai.AsyncOpenAI, text: str) -> str:
        """The raw answer to one question; the client retries."""
        settings = self._settings
        body: dict[str, Any] = {"temperature": 0, "max_tokens": settings.max_answer_tokens}
        if settings.logprobs:
            body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        body = {name: value for name, value in (body | settings.extra).items() if value is not None}
        try:
            raw = await client.chat.completions.with_raw_response.create(
                model=settings.model, messages=[{"role": "user", "content": text}], extra_body=body
            )
            return str(raw.text)
        except openai.APIStatusError as error:
            reason = f"HTTP {error.status_code}: {self._without_key(error.message)}"
        except openai.APITimeoutError:
            reason = f"none within oracle.timeout_seconds={settings.timeout_seconds}"
        except openai.APIConnectionError as error:
            reason = self._without_key(str(error.__cause__ or error) or type(error).__name__)
        raise UserError(
            f"oracle: {settings.endpoint} gives no answer ({reason}), tried at most {settings.retries + 1} times; what "
            "was answered is kept: run again"
        )

    def _judgement(self, payload: dict[str, Any], text: str, row: Row) -> Judgement:
        choice = payload["choices"][0]
        answer = choice["message"].get("content") or ""
        usage = payload.get("usage") or {}
        paid = {
            "input_tokens": int(usage.get("prompt_tokens", len(text.encode()) // _BYTES_PER_TOKEN)),
            "output_tokens": int(usage.get("completion_tokens", 1 + len(answer.encode()) // _BYTES_PER_TOKEN)),
        }
        prompt = repr(row.prompt[:60])
        logit = _listed_logit(choice)
        if logit is not None:
            if not math.isfinite(logit):
                raise UserError(f"oracle: the judge's log-probs for the prompt {prompt} are not finite")
            return Judgement(logit, unparsed=False, **paid)
        verdict = parse_verdict(answer)
        if verdict is None and self._settings.unparsable == "error":
            raise UserError(f"oracle: to the prompt {prompt} the judge answered {answer[:60]!r}, which is no verdict")
        return Judgement((verdict or 0) * self._settings.verdict_logit, unparsed=verdict is None, **paid)

    def _without_key(self, message: str) -> str:
        """One line of a message in which a server may have repeated the key."""
        line = " ".join(message.split())[:300]
        return line if self._key == NO_KEY else line.replace(self._key, "***")


def _listed_logit(choice: dict[str, Any]) -> float | None:
    """Logit from the first token's log-probs, where the endpoint gave any that name a letter."""
    content = (choice.get("logprobs") or {}).get("content") or []
    if not content:
        return None
    listed: dict[str, float] = {}
    for item in content[0].get("top_logprobs") or []:
        listed[item["token"]] = float(item["logprob"])
    return first_token_logit(listed)


def _report(on_progress: OnProgress, rows: int, questions: int, answered: int) -> None:
    """Progress over the rows, from answers to distinct questions."""
    on_progress(answered * rows // questions)


def _facts(judgements: Sequence[Judgement]) -> dict[str, int]:
    return {
        "answers": len(judgements),
        "unparsed": sum(judgement.unparsed for judgement in judgements),
        "input_tokens": sum(judgement.input_tokens for judgement in judgements),
        "output_tokens": sum(judgement.output_tokens for judgement in judgements),
    }
