"""Requests and answers: every prompt of the toy world, and a seeded author of mediocre answers."""

import random
import re
from typing import NamedTuple

from scripts.toy import lexicon as lex

POPULARITY_DECAY = 1.3
"""an item's weight is 1 / rank ** this: the base policy has favourites, as language models have"""


class Request(NamedTuple):
    """A prompt with what it asks for."""

    text: str
    topic: lex.Topic
    wanted: int
    """how many items"""


def with_article(noun: str) -> str:
    """'opal' -> 'an opal'."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def capitalised(text: str) -> str:
    """First letter upper case, the rest untouched ('brie' -> 'Brie', 'Fuji' -> 'Fuji')."""
    return text[:1].upper() + text[1:]


def all_requests() -> list[Request]:
    """Every request of the world, in a fixed order, each text once."""
    requests = []
    for topic in lex.TOPICS:
        words = {"t": with_article(topic.singular), "s": topic.singular, "p": topic.plural}
        for wanted, forms in ((1, lex.ONE_WANTED), (2, lex.TWO_WANTED)):
            for form in forms:
                for occasion in lex.OCCASIONS:
                    requests.append(Request(form.format(o=occasion, **words), topic, wanted))
    return requests


def write_answer(rng: random.Random, request: Request) -> str:
    """An answer of random manners: some off topic, rude, rambling, with a wrong reason or count.

    The mixture leaves room for improvement in every respect that `quality.py` measures.
    """
    count = request.wanted if rng.random() < 0.62 else rng.choice((1, 2, 3))
    topic = request.topic if rng.random() < 0.82 else rng.choice(lex.TOPICS)
    items = _choose_items(rng, topic, count)
    if count > 1 and rng.random() < 0.12:
        items[-1] = _choose_items(rng, rng.choice(lex.TOPICS), 1)[0]
    sentences = [_opening(rng), _offer(rng, items)]
    if rng.random() < 0.42:
        sentences.append(_reason(rng, rng.choice(items)))
    sentences.append(_closing(rng))
    return " ".join(sentence for sentence in sentences if sentence)


def words_of(text: str) -> list[str]:
    """The lower-case words of a text, without punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def _choose_items(rng: random.Random, topic: lex.Topic, count: int) -> list[str]:
    items = list(topic.facts)
    weights = [1 / rank**POPULARITY_DECAY for rank in range(1, len(items) + 1)]
    chosen: list[str] = []
    while len(chosen) < count:
        item = rng.choices(items, weights)[0]
        if item not in chosen:
            chosen.append(item)
    return chosen


def _opening(rng: random.Random) -> str:
    styles = (lex.WARM_OPENINGS, lex.PLAIN_OPENINGS, lex.RUDE_OPENINGS)
    return rng.choice(rng.choices(styles, (0.3, 0.5, 0.2))[0])


def _offer(rng: random.Random, items: list[str]) -> str:
    names = dict(zip("abc", items, strict=False))
    return rng.choice(lex.OFFERS[len(items) - 1]).format(A=capitalised(items[0]), **names)


def _reason(rng: random.Random, item: str) -> str:
    facts = {name: fact for topic in lex.TOPICS for name, fact in topic.facts.items()}
    fact = facts[item] if rng.random() < 0.85 else rng.choice(list(facts.values()))
    return rng.choice(lex.REASONS).format(a=item, f=fact)


def _closing(rng: random.Random) -> str:
    styles = (lex.WARM_CLOSINGS, lex.RUDE_CLOSINGS, lex.RAMBLING_CLOSINGS, ("",))
    return rng.choice(rng.choices(styles, (0.2, 0.12, 0.13, 0.55))[0])
