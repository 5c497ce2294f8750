"""What packing saves on lengths like UltraFeedback's: goals that the plan of microbatches has to keep."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.packing import Lengths, drawn, of_answers, packed, padded_slots, table


@pytest.fixture(scope="module")
def lengths() -> Lengths:
    return drawn(512)


@pytest.mark.parametrize("replicas", [1, 8])
def test_slots(lengths: Lengths, replicas: int) -> None:
    found = packed(table(lengths), replicas=replicas, budget=8192)
    assert padded_slots(lengths) >= 1.7 * found.slots
    assert lengths.tokens >= 0.98 * found.slots
    assert found.waiting == 0


def test_a_shared_prompt_takes_its_tokens_once(lengths: Lengths) -> None:
    """But for the prompt's last token, which stands before both responses."""
    alone = packed(table(lengths), replicas=1, budget=8192)
    shared = packed(table(lengths), replicas=1, budget=8192, shared=True)
    saved = sum(prompt - 1 for prompt, _, _ in lengths.of_pair)
    assert 0.98 * shared.slots <= lengths.tokens - saved <= shared.slots < 0.9 * alone.slots


def test_slots_of_a_batch_are_its_rows_times_the_longest() -> None:
    by_hand = Lengths("by hand", [(10, 5, 1), (2, 3, 30), (1, 1, 1)])
    assert padded_slots(by_hand, batch=3) == 6 * 32
    assert padded_slots(by_hand, batch=1) == 2 * 15 + 2 * 32 + 2 * 2
    assert by_hand.tokens == 26 + 37 + 4


def test_answers_are_joined_by_question(tmp_path: Path) -> None:
    line = '{"messages": [{"content": "%s", "role": "user"}, {"content": {"answer": "%s"}, "role": "assistant"}]}\n'
    (tmp_path / "questions").write_text('{"prompt": "What is it?!"}\n{"prompt": "And why?"}\n')
    (tmp_path / "first").write_text(line % ("And why?", "x" * 40) + line % ("What is it?!", "y" * 80))
    (tmp_path / "second").write_text(line % ("What is it?!", "z" * 8))
    found = of_answers(tmp_path / "first", tmp_path / "second", tmp_path / "questions")
    assert found.of_pair == [(3, 20, 2)]
