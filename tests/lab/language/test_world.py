"""The task's truth is what it is said to be, and its judge is wrong only where it shall be."""

from itertools import permutations

import numpy as np
import pytest

from nemo_sspo.lab.language import sentences as text
from nemo_sspo.lab.language.judge import Judge
from nemo_sspo.lab.language.world import World, all_prompts, all_sentences, meaning_of, sentences_of

GARBLED = "drink drink"


@pytest.fixture(scope="module")
def world() -> World:
    return World.draw(0)


def test_no_sentence_has_two_meanings() -> None:
    assert len(all_sentences()) == len(text.MEANINGS) * 6 * len(text.FRAMES) * len(text.ENDS)
    assert {len(sentences_of(meaning)) for meaning in range(len(text.MEANINGS))} == {288}
    assert len(set(all_prompts())) == len(all_prompts())


def test_truth_is_a_constant_sum_game_and_not_transitive(world: World) -> None:
    assert np.allclose(world.truth_SMM, -world.truth_SMM.swapaxes(1, 2))
    utility = world.truth_SMM[:, :-1, :-1].mean(axis=2)
    rest = world.truth_SMM[:, :-1, :-1] - (utility[:, :, None] - utility[:, None, :])
    assert np.abs(rest).max() > 0.5, "a utility alone would explain every preference"


def test_some_meanings_beat_each_other_in_a_circle() -> None:
    found = sum(
        bool(np.all([truth_MM[a, b] > 0, truth_MM[b, c] > 0, truth_MM[c, a] > 0]))
        for seed in range(4)
        for truth_MM in World.draw(seed).truth_SMM
        for a, b, c in permutations(range(len(text.MEANINGS)), 3)
    )
    assert found > 0


def test_what_is_no_sentence_is_worse_than_any(world: World) -> None:
    assert meaning_of(GARBLED) == len(text.MEANINGS)
    assert (world.truth_SMM[:, -1, :-1] < 0).all()


def test_the_judge_is_true_between_meanings_and_sure_inside_one(world: World) -> None:
    prompt = world.prompts[0]
    first, second, other = sentences_of(0)[0].text, sentences_of(0)[100].text, sentences_of(1)[0].text
    answers = [first, second, other, first]
    (logits_KK,) = Judge(world, 6.0).logits([prompt], [answers])
    assert np.allclose(logits_KK, -logits_KK.T)
    assert logits_KK[0, 3] == 0, "a sentence beats itself by nothing"
    assert abs(logits_KK[0, 1]) > 0.1
    assert logits_KK[0, 2] == pytest.approx(world.truth_SMM[prompt.situation, 0, 1])
    (true_KK,) = Judge(world, 0.0).logits([prompt], [answers])
    assert true_KK[0, 1] == 0


def test_the_dial_scales_what_is_wrong(world: World) -> None:
    prompts, rng = world.prompts[:200], np.random.default_rng(0)
    answers = [[sentences_of(2)[index].text for index in rng.integers(288, size=2)] for _ in prompts]
    one, six = (Judge(world, dial).logits(prompts, answers)[:, 0, 1] for dial in (1.0, 6.0))
    assert np.allclose(6 * one, six)
    noise = one[[first != second for first, second in answers]]
    assert 0.9 < noise.std() < 2.0, "z has about unit variance, and a difference of two about twice that"


def test_worlds_differ_and_come_again() -> None:
    assert np.array_equal(World.draw(5).truth_SMM, World.draw(5).truth_SMM)
    assert World.draw(5).prompts == World.draw(5).prompts
    assert not np.array_equal(World.draw(5).truth_SMM, World.draw(6).truth_SMM)
