"""The committed data: reproducible from its seed, disjoint, written by the package's own author."""

import random
import statistics

from scripts.toy import dataset
from scripts.toy.grammar import all_requests, with_article, write_answer
from scripts.toy.quality import parse_request, traits


def test_committed_files_are_what_the_generator_writes() -> None:
    for name, text in dataset.render().items():
        assert (dataset.DATA / name).read_text(encoding="utf-8") == text, f"run python -m scripts.toy.dataset ({name})"


def test_no_prompt_is_in_two_sets_or_twice() -> None:
    held_out, self_play, supervised = (
        [row["prompt"] for row in dataset.read(f"{name}.jsonl")] for name in ("held_out", "prompts", "instructions")
    )
    assert (len(held_out), len(self_play), len(supervised)) == (200, 600, 2500)
    assert len(set(held_out)) == 200
    assert len(set(self_play)) == 600
    assert not set(held_out) & set(self_play)
    assert not (set(held_out) | set(self_play)) & set(supervised)


def test_files_stay_small() -> None:
    assert all(file.stat().st_size < 1_000_000 for file in dataset.DATA.iterdir())


def test_the_author_is_deterministic_and_mediocre_in_every_respect() -> None:
    requests = all_requests()[::5]
    answers = [write_answer(random.Random(i), request) for i, request in enumerate(requests)]
    assert answers == [write_answer(random.Random(i), request) for i, request in enumerate(requests)]
    read = [traits(request, answer) for request, answer in zip(requests, answers, strict=True)]
    assert not any(t.garbled for t in read)
    for name in ("on_topic", "warm", "rude", "true_reason", "false_reason", "right_count"):
        assert 0.05 < statistics.fmean(getattr(t, name) for t in read) < 0.95, name


def test_every_answer_names_an_item() -> None:
    for row in dataset.read("instructions.jsonl"):
        request = parse_request(row["prompt"])
        named = [item for answer in [row["response"].lower()] for item in request.topic.facts if item.lower() in answer]
        assert bool(named) == traits(request, row["response"]).partly_on_topic


def test_articles() -> None:
    assert [with_article(noun) for noun in ("opal", "ruby", "sea animal")] == ["an opal", "a ruby", "a sea animal"]
