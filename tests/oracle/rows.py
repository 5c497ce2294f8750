"""Rows of odd and of over-long texts."""

import itertools

from nemo_sspo.oracle.protocol import Row

PROMPTS = ["hi", "How do I sort a list of numbers? " * 9, "", "Über 今日 😀\n\tok", "line [SEP] break"]
RESPONSES = [
    ["a", "", "Use sorted()", "quick brown fox jumps " * 30, "a"],
    ["list.sort() " * 8, "No.", "today 良い", " ", "x" * 200],
    ["", "", "The lazy dog. " * 12, "Python [SEP] list", "😀😀"],
    ["naïve café", "NAIVE", "今日は良い天気です。" * 20, "ok\n", "ok"],
    ["one", "two", "three", "four", "five"],
]


def all_rows() -> list[Row]:
    return [
        Row(prompt, first, second)
        for prompt, responses in zip(PROMPTS, RESPONSES, strict=True)
        for first, second in itertools.permutations(responses, 2)
    ]
