"""The endpoint judge against a real HTTP server that answers by a formula and fails as it is told."""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openai")

from nemo_sspo.config.oracles import LlmJudgeOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.judge.llm_judge import LlmJudge
from nemo_sspo.oracle.protocol import OracleResources, Preferences, Row
from tests.oracle.judge_server import TEMPLATE, USAGE, JudgeServer, Reply, in_words, with_logprobs

KEY = "sk-very-secret-key"
ROWS = [Row("q", first, second) for first, second in (("a", "bb"), ("bb", "a"), ("a", "ccc"), ("ccc", "a"))]
TOO_MANY: Reply = (429, {"Retry-After": "0.3"}, b'{"error": {"message": "slow down"}}')
BROKEN: Reply = (500, {}, b"oops")


def longer(prompt: str, first: str, second: str) -> dict:
    """Prefers length, and the place shown first by 0.25."""
    logit = len(first) - len(second) + 0.25
    return with_logprobs(A=math.log(1 / (1 + math.exp(-logit))), B=math.log(1 / (1 + math.exp(logit))))


LOGITS = [-0.75, 1.25, -1.75, 2.25]


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer(longer) as running:
        yield running


@pytest.fixture
def judge(server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LlmJudge]:
    """Make a judge of the server; its journal is judgements/step.jsonl."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "template.txt").write_text(TEMPLATE)

    def make(step: str = "step", rows: int = 0, **settings: object) -> LlmJudge:
        given = {"endpoint": server.url, "model": "m", "template": str(tmp_path / "template.txt"), "retries": 2}
        resources = OracleResources(journal=tmp_path / "judgements" / f"{step}.jsonl", rows=rows)
        return LlmJudge(LlmJudgeOracle(**(given | settings)), resources)

    return make


def test_the_logit_is_that_of_the_first_tokens_log_probs(judge, server: JudgeServer) -> None:
    preferences = judge().compare(ROWS)
    np.testing.assert_allclose(preferences.logits_R, LOGITS, atol=1e-6)
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["logprobs"]) == ("m", 0, True)
    assert server.keys == {f"Bearer {KEY}"}
    assert preferences.facts == {
        "answers": 4,
        "unparsed": 0,
        "input_tokens": 4 * USAGE["prompt_tokens"],
        "output_tokens": 4 * USAGE["completion_tokens"],
        **{"compared": 2, "tied": 0, "tied_first": 0, "tied_second": 0},
    }


def test_without_log_probs_a_verdict_is_a_stated_logit(judge, server: JudgeServer) -> None:
    words = {("a", "bb"): "B", ("bb", "a"): "[[A]]", ("a", "ccc"): "tie", ("ccc", "a"): "no idea"}
    server.answer = lambda prompt, first, second: in_words(words[first, second])
    preferences = judge(logprobs=False, verdict_logit=1.5).compare(ROWS)
    assert preferences.logits_R.tolist() == [-1.5, 1.5, 0, 0]
    assert preferences.facts["unparsed"] == 1
    assert (preferences.facts["compared"], preferences.facts["tied"]) == (2, 1)
    assert "logprobs" not in server.bodies[0]
    for step in ("strict", "step"):  # asked anew, or kept as a tie by the settings before
        with pytest.raises(UserError, match="to the prompt 'q' the judge answered 'no idea', which is no verdict"):
            judge(step, logprobs=False, verdict_logit=1.5, unparsable="error").compare(ROWS)


def test_log_probs_that_are_not_numbers_name_their_prompt(judge, server: JudgeServer) -> None:
    server.answer = lambda *_: with_logprobs(A=float("nan"), B=-1.0)
    with pytest.raises(UserError, match="log-probs for the prompt 'q' are not finite"):
        judge().compare(ROWS)


def test_equal_questions_are_asked_once_and_equal_responses_never(judge, server: JudgeServer) -> None:
    preferences = judge().compare([*ROWS, *ROWS, Row("q", "same", "same")])
    assert sorted(server.asked) == sorted({row[:3] for row in ROWS})
    np.testing.assert_allclose(preferences.logits_R, [*LOGITS, *LOGITS, 0], atol=1e-6)


def test_long_texts_are_cut_and_counted(judge, server: JudgeServer) -> None:
    preferences = judge(text_max_characters=4).compare([Row("prompt", "a", "bb"), Row("q", "a", "bbbbbb"), ROWS[0]])
    assert preferences.truncated_R.tolist() == [True, True, False]
    assert set(server.asked) == {("prom", "a", "bb"), ("q", "a", "bbbb"), ("q", "a", "bb")}


@pytest.mark.parametrize("garbled", [b'{"choices": [', b"[]", b'{"choices": [{}]}'])
def test_garbled_answers_are_asked_again(judge, server: JudgeServer, garbled: bytes) -> None:
    server.faults = [(200, {}, garbled)]
    np.testing.assert_allclose(judge(concurrency=1).compare(ROWS[:1]).logits_R, LOGITS[:1], atol=1e-6)
    assert len(server.bodies) == 2


def test_failures_of_the_server_are_tried_again(judge, server: JudgeServer) -> None:
    """A rate limit is waited out as the server asks, a 500 and a silence are tried again."""
    server.faults = [TOO_MANY, BROKEN]
    started = time.monotonic()
    np.testing.assert_allclose(judge(concurrency=1).compare(ROWS).logits_R, LOGITS, atol=1e-6)
    assert time.monotonic() - started >= 0.3
    assert len(server.bodies) == 6
    server.faults = [600.0]
    slow = judge("slow", concurrency=1, timeout_seconds=3)
    np.testing.assert_allclose(slow.compare(ROWS).logits_R, LOGITS, atol=1e-6)
    assert server.faults == []


def test_giving_up_says_why_and_keeps_what_was_answered(judge, server: JudgeServer) -> None:
    first = judge(concurrency=1, retries=0)
    first.compare(ROWS[:2])
    server.faults = [BROKEN]
    with pytest.raises(
        UserError, match=r"no answer \(HTTP 500: .*\), tried at most 1 times; what was answered is kept"
    ):
        first.compare(ROWS)
    server.faults, asked = [600.0], len(server.bodies)
    with pytest.raises(UserError, match=r"gives no answer \(none within oracle\.timeout_seconds=2\.0\)"):
        judge("silent", concurrency=1, retries=0, timeout_seconds=2.0).compare(ROWS[:1])
    server.wait_for(asked + 1)
    server.faults = [(200, {}, b"<html>")]
    with pytest.raises(UserError, match="answered 1 times with something other than a chat completion"):
        judge("html", concurrency=1, retries=0).compare(ROWS[:1])


def test_the_key_is_in_no_message_no_file_and_no_log(judge, server: JudgeServer, tmp_path: Path, caplog) -> None:
    """Not even where the server repeats it."""
    caplog.set_level(logging.DEBUG)
    server.faults = [(401, {}, json.dumps({"error": {"message": f"bad key {KEY}"}}).encode())]
    with pytest.raises(UserError, match=r"HTTP 401: .*\*\*\*") as refusal:
        judge(concurrency=1).compare(ROWS)
    assert len(server.bodies) == 1, "a refusal is not tried again"
    judge().compare(ROWS)
    texts = [str(refusal.value), repr(judge().__dict__["_settings"]), caplog.text]
    texts += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY in text for text in texts)


def test_requests_under_way_are_bounded(judge, server: JudgeServer) -> None:
    rows = [Row(f"q{number}", "a", "bb") for number in range(24)]
    server.faults = [0.02] * 24
    judge(concurrency=5).compare(rows)
    assert 2 <= server.most_at_once <= 5


def test_a_new_process_asks_only_what_was_not_answered(judge, server: JudgeServer, tmp_path: Path) -> None:
    before = judge().compare(ROWS[:3])
    journal = tmp_path / "judgements" / "step.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"key": "cut short by a ki')
    after = judge().compare(ROWS)
    np.testing.assert_array_equal(after.logits_R[:3], before.logits_R)
    assert len(server.asked) == 4
    assert [set(json.loads(line)) for line in journal.read_text().splitlines()] == [
        {"key", "logit", "unparsed", "input_tokens", "output_tokens"}
    ] * 4
    assert judge().compare(ROWS).facts == after.facts
    judge(verdict_logit=1.0).compare(ROWS[:1])
    assert len(server.asked) == 5, "an answer under other settings is another answer"
    journal.write_text("{}\n")
    with pytest.raises(UserError, match=r"step\.jsonl: a line is not an answer of a judge"):
        judge().compare(ROWS)


def test_a_plan_over_the_cap_is_refused_before_the_first_request(judge, server: JudgeServer) -> None:
    with pytest.raises(UserError, match=r"with 4 more questions the run would pay for 4 requests, over oracle\.max_"):
        judge(max_requests=3).compare(ROWS)
    with pytest.raises(UserError, match=r"tokens, over oracle\.max_tokens=2"):
        judge(max_tokens=2).compare(ROWS)
    prices = {"dollars_per_million_input_tokens": 1e6, "dollars_per_million_output_tokens": 0}
    with pytest.raises(UserError, match=r"over oracle\.max_dollars=0\.5"):
        judge(max_dollars=0.5, **prices).compare([Row("four" * 4, "a", "b")])
    assert server.bodies == []


def test_a_plan_is_that_of_all_of_a_steps_calls(judge, server: JudgeServer) -> None:
    """Three windows of four questions: what all of them would cost is weighed before the first is asked."""
    windows = [[row._replace(prompt=f"{row.prompt} {n}") for row in ROWS[:4]] for n in range(3)]
    with pytest.raises(UserError, match="with 12 more questions the run would pay for 12 requests"):
        judge(rows=12, max_requests=11).compare(windows[0])
    assert server.bodies == []
    begun = judge(rows=12, max_requests=12)
    begun.compare(windows[0])
    resumed = judge(rows=12, max_requests=12)  # its first window is answered, and no longer planned
    for window in windows:
        resumed.compare(window)
    assert len(server.asked) == 12


def test_what_turns_out_dearer_than_planned_stops_at_the_cap(judge, server: JudgeServer) -> None:
    """An answer is estimated at a few tokens here and costs 102: the third question would pass the cap."""
    with pytest.raises(UserError, match=r"stopped before the run would have paid for .* tokens, over oracle\.max_tok"):
        judge(concurrency=1, max_tokens=205).compare(ROWS)
    assert len(server.asked) == 2
    judge(concurrency=1, max_tokens=1000).compare(ROWS)
    assert len(server.asked) == 4, "what was paid for is not asked again"


def test_a_cap_holds_for_all_steps_of_a_run(judge, server: JudgeServer) -> None:
    judge("one", max_requests=5).compare(ROWS)
    with pytest.raises(UserError, match="would pay for 6 requests"):
        judge("two", max_requests=5).compare([Row("other", "a", "bb"), Row("other", "bb", "a")])
    judge("two", max_requests=5).compare([Row("other", "a", "bb")])
    assert len(server.asked) == 5


def test_a_cap_holds_for_steps_that_ask_side_by_side(judge, server: JudgeServer) -> None:
    """Eight steps of four questions each start at once under a cap of ten; every question waits for the others."""
    server.faults = [0.05] * 40
    start = threading.Barrier(8)

    def step(number: int) -> str:
        judging = judge(f"step_{number}", max_requests=10, concurrency=4)
        rows = [Row(f"q{number}", "a", "b" * length) for length in range(2, 6)]
        start.wait()
        try:
            judging.compare(rows)
        except UserError as refusal:
            return str(refusal)
        return "all answered"

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(step, range(8)))
    assert len(server.bodies) == 10, "no request beyond the cap, and none refused below it"
    assert any("stopped before the run would have paid for 11 requests" in end for end in ends)
    assert judge("late", max_requests=10).compare([Row("q", "x", "x")]).unique_rows == 1, "equal responses cost nothing"


def test_questions_of_a_killed_step_count_until_it_runs_again(judge, server: JudgeServer, tmp_path: Path) -> None:
    """They may have been paid for; its own journal then says what was."""
    judge("killed").compare(ROWS[:2])
    ledger = tmp_path / "judgements" / "spending.json"
    entries = json.loads(ledger.read_text())
    assert entries == {"killed": [2, 2 * USAGE["prompt_tokens"], 2 * USAGE["completion_tokens"]]}
    ledger.write_text(json.dumps({"killed": [5, 500, 10]}))  # three more were under way
    with pytest.raises(UserError, match="would pay for 6 requests"):
        judge("other", max_requests=5).compare([Row("other", "a", "bb")])
    judge("killed", max_requests=5).compare(ROWS)
    assert json.loads(ledger.read_text())["killed"] == [4, 400, 8]
    judge("other", max_requests=5).compare([Row("other", "a", "bb")])


def test_a_ledger_that_is_gone_is_made_of_the_journals(judge, server: JudgeServer, tmp_path: Path) -> None:
    judge("one").compare(ROWS)
    ledger = tmp_path / "judgements" / "spending.json"
    ledger.unlink()
    with pytest.raises(UserError, match="would pay for 5 requests"):
        judge("two", max_requests=4).compare([Row("other", "a", "bb")])
    ledger.write_text("[1]")
    with pytest.raises(UserError, match=r"spending\.json: not what a judge's steps have paid; delete it"):
        judge("two").compare(ROWS)


def test_extra_fields_change_the_request(judge, server: JudgeServer) -> None:
    judge(extra={"max_tokens": None, "max_completion_tokens": 7}).compare(ROWS[:1])
    assert "max_tokens" not in server.bodies[0]
    assert server.bodies[0]["max_completion_tokens"] == 7


def test_missing_keys_and_leaking_endpoints_are_refused(judge, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("ftp://host/v1", "host/v1", "http://", "http://host:port/v1"):
        with pytest.raises(UserError, match=r"oracle\.endpoint.*not a URL"):
            judge(endpoint=url)
    with pytest.raises(UserError, match="holds a user name, a password or a query") as refusal:
        judge(endpoint="https://me:hunter2@host/v1")
    assert "hunter2" not in str(refusal.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY: not set"):
        judge()
    assert isinstance(judge(api_key_variable=None).compare(ROWS[:1]), Preferences)
