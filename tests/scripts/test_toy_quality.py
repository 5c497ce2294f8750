"""The true quality of the toy world, in cases worked out by hand."""

import re

import pytest

from scripts.toy import lexicon as lex
from scripts.toy.grammar import all_requests
from scripts.toy.quality import parse_request, quality_of, traits, true_preference, true_quality

ONE_CHEESE = "I am looking for a cheese for my cousin."
TWO_CHEESES = "List two cheeses for my cousin."


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        (ONE_CHEESE, "Perhaps brie.", 1.5 + 0.3 + 0.4),
        (TWO_CHEESES, "Perhaps brie.", 1.5 + 0.3),
        (TWO_CHEESES, "Perhaps brie and feta.", 1.5 + 0.3 + 0.4),
        (TWO_CHEESES, "My choice would be brie, then brie.", 1.5 + 0.3),
        (TWO_CHEESES, "Perhaps brie and rice.", 0.3 + 0.4),
        (ONE_CHEESE, "Perhaps rice.", 0.4),
        (ONE_CHEESE, "Gladly! Perhaps brie. All the best!", 2.2 + 1.0),
        (ONE_CHEESE, "How boring. Perhaps brie.", 2.2 - 1.2),
        (ONE_CHEESE, "Brie comes to mind. You see, brie melts into warm toast.", 2.2 + 1.0),
        (ONE_CHEESE, "Perhaps brie. You see, brie crumbles over a salad.", 2.2 - 0.5),
        (ONE_CHEESE, "Perhaps rice. You see, rice feeds half the planet.", 0.4 - 0.5),
        (ONE_CHEESE, "Perhaps brie. You see, brie squorms.", 2.2 - 0.8),
        (ONE_CHEESE, "", 0.0),
    ],
)
def test_quality_is_the_sum_of_merits_and_faults(prompt: str, answer: str, expected: float) -> None:
    assert true_quality(prompt, answer) == pytest.approx(expected)


def test_length_costs_only_beyond_the_free_words() -> None:
    free = "Perhaps brie" + " and" * 18
    assert true_quality(ONE_CHEESE, free + ".") == pytest.approx(2.2)
    assert true_quality(ONE_CHEESE, free + " and" * 5 + ".") == pytest.approx(2.2 - 5 * 0.08)


def test_the_perfect_answer_is_the_upper_bound() -> None:
    perfect = "Gladly! Perhaps brie. You see, brie melts into warm toast."
    assert true_quality(ONE_CHEESE, perfect) == pytest.approx(4.2)


def test_preference_is_bradley_terry_in_quality() -> None:
    good, bad = "Perhaps brie.", "How boring. Perhaps brie."
    assert true_preference(ONE_CHEESE, good, bad) == pytest.approx(1 / (1 + 2.718281828459045 ** (-1.5 * 1.2)))
    assert true_preference(ONE_CHEESE, good, bad) + true_preference(ONE_CHEESE, bad, good) == pytest.approx(1)
    assert true_preference(ONE_CHEESE, good, good) == 0.5


def test_foreign_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="not a request of the toy world"):
        true_quality("What is the capital of France?", "Paris.")


@pytest.mark.parametrize("topic", lex.TOPICS, ids=lambda topic: topic.singular)
def test_every_fact_is_true_of_its_item_and_of_no_other(topic: lex.Topic) -> None:
    request = next(r for r in all_requests() if r.topic is topic and r.wanted == 1)
    for owner, fact in topic.facts.items():
        for item in topic.facts:
            read = traits(request, f"Perhaps {item}. You see, {item} {fact}.")
            assert (read.true_reason, read.false_reason) == (item == owner, item != owner)


def test_the_words_of_the_world_are_unambiguous() -> None:
    items = [item for topic in lex.TOPICS for item in topic.facts]
    facts = [fact for topic in lex.TOPICS for fact in topic.facts.values()]
    phrases = [*facts, *lex.WARM_OPENINGS, *lex.RUDE_OPENINGS, *lex.WARM_CLOSINGS, *lex.RUDE_CLOSINGS,
               *lex.RAMBLING_CLOSINGS, *lex.OCCASIONS, *lex.REASONS]  # fmt: skip
    assert len(set(items)) == len(items)
    assert len(set(facts)) == len(facts)
    item_pattern = re.compile(rf"\b(?:{'|'.join(items)})\b", re.IGNORECASE)
    assert [phrase for phrase in phrases if item_pattern.search(phrase)] == []
    assert [(a, b) for a in facts for b in facts if a != b and a in b] == []


def test_each_request_reads_back_as_itself() -> None:
    requests = all_requests()
    assert len({request.text for request in requests}) == len(requests)
    assert all(parse_request(request.text) is not None for request in requests)
    assert parse_request(TWO_CHEESES).wanted == 2
    assert parse_request(ONE_CHEESE).topic.plural == "cheeses"
    assert quality_of(traits(parse_request(ONE_CHEESE), "Perhaps brie.")) == true_quality(ONE_CHEESE, "Perhaps brie.")
