"""The parts of the toy's two models that can be wrong without training them."""

import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from scripts.toy import dataset  # noqa: E402
from scripts.toy.batching import pad_rows, similar_length_batches, warm_up_then_linear  # noqa: E402
from scripts.toy.comparisons import NO_LABEL, compare  # noqa: E402
from scripts.toy.pairrm import FIRST, SECOND, SOURCE, OracleSize, build_pairrm, compare_rows, segment_ids  # noqa: E402
from scripts.toy.policy import prompt_ids, response_ids, response_loss  # noqa: E402
from scripts.toy.quality import parse_request  # noqa: E402
from scripts.toy.tokenizer import train_oracle_tokenizer, train_policy_tokenizer  # noqa: E402
from scripts.toy.word_vectors import co_occurrence_vectors  # noqa: E402

AWKWARD = "Brie,  naïve\n\tcafé 😀 <|end"
PROMPT = "I am looking for a cheese for my cousin."


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for row in dataset.read("instructions.jsonl")[:400] for text in row.values()]


@pytest.fixture(scope="module")
def policy_tokenizer(texts):
    return train_policy_tokenizer(texts, 1024)


@pytest.fixture(scope="module")
def oracle_tokenizer(texts):
    return train_oracle_tokenizer(texts, 1024)


def test_chat_template_is_turn_markers_around_the_plain_ids(policy_tokenizer) -> None:
    pad, end, user, assistant, system = range(5)
    plain = policy_tokenizer.encode("Pick one nut, please.", add_special_tokens=False)
    assert prompt_ids(policy_tokenizer, "Pick one nut, please.") == [user, *plain, end, assistant]
    assert response_ids(policy_tokenizer, "Gladly!")[-1] == end == policy_tokenizer.eos_token_id
    assert policy_tokenizer.pad_token_id == pad
    assert policy_tokenizer.bos_token_id is None
    turns = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": "y"},
        {"role": "assistant", "content": "z"},
    ]
    ids = policy_tokenizer.apply_chat_template(turns, return_dict=False)
    assert [token for token in ids if token < 5] == [system, end, user, end, assistant, end]


def test_tokenizers_round_trip_any_text_and_survive_saving(policy_tokenizer, oracle_tokenizer, tmp_path) -> None:
    from transformers import AutoTokenizer

    for name, tokenizer in (("policy", policy_tokenizer), ("oracle", oracle_tokenizer)):
        tokenizer.save_pretrained(tmp_path / name)
        loaded = AutoTokenizer.from_pretrained(tmp_path / name)
        ids = tokenizer.encode(AWKWARD)
        assert loaded.encode(AWKWARD) == ids
        assert loaded.decode(ids, skip_special_tokens=True) == AWKWARD
        assert len(loaded) == 1024
    assert AutoTokenizer.from_pretrained(tmp_path / "policy").chat_template == policy_tokenizer.chat_template


def test_vocabulary_is_padded_to_a_multiple_of_128() -> None:
    tokenizer = train_policy_tokenizer(["so few words"], 1024)
    assert len(tokenizer) == 384
    assert tokenizer.encode("so few words", add_special_tokens=False)


def test_oracle_segments_are_wrapped_as_debertas(oracle_tokenizer) -> None:
    ids = segment_ids(oracle_tokenizer, FIRST, "Perhaps brie.")
    assert oracle_tokenizer.convert_ids_to_tokens(ids[:2]) == ["[CLS]", FIRST]
    assert ids[-1] == oracle_tokenizer.sep_token_id
    assert ids.count(oracle_tokenizer.sep_token_id) == 1


def test_response_loss_sees_response_tokens_only(policy_tokenizer) -> None:
    """Against the definition: mean of -log p over the response's tokens, without padding and prompt."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=1024, pad_token_id=0, **size)).eval()
    examples = [([2, 9, 8, 1, 3], [7, 6, 1]), ([2, 5, 1, 3], [4, 1])]
    expected = []
    for prompt, response in examples:
        log_probs = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        expected += [-log_probs[len(prompt) - 1 + i, token] for i, token in enumerate(response)]
    torch.testing.assert_close(response_loss(model, examples), torch.stack(expected).mean())


def test_labels_point_at_right_and_wrong_items_and_facts(oracle_tokenizer) -> None:
    right, wrong = "Perhaps brie. You see, brie melts into warm toast.", "Perhaps rice."
    row = compare(oracle_tokenizer, parse_request(PROMPT), right, wrong)
    assert len(row.ids) == len(row.token_labels)

    def labelled(value: float) -> str:
        pairs = zip(row.ids, row.token_labels, strict=True)
        return oracle_tokenizer.decode([token for token, label in pairs if label == value])

    assert labelled(1.0).split() == ["brie", "brie", "melts", "into", "warm", "toast"]
    assert labelled(0.0).split() == ["rice"]
    assert "cheese" in labelled(NO_LABEL)
    assert row.preference > 0.9


def test_exchanging_the_markers_exchanges_the_verdict(oracle_tokenizer) -> None:
    """The logit is head(first) - head(second): when both read the same state, it is 0."""
    torch.manual_seed(0)
    size = OracleSize(hidden=32, layers=1, heads=2, feed_forward=32)
    model = build_pairrm(size, oracle_tokenizer).eval()
    source, first, second = (
        segment_ids(oracle_tokenizer, marker, text)
        for marker, text in ((SOURCE, PROMPT), (FIRST, "Perhaps brie."), (SECOND, "Perhaps rice."))
    )
    ids, mask = pad_rows([source + first + second], oracle_tokenizer.pad_token_id)
    encodings = model.encode(ids, mask)
    swapped = encodings._replace(first_B2H=encodings.second_B2H, second_B2H=encodings.first_B2H)
    torch.testing.assert_close(model.compare(swapped), -model.compare(encodings))
    place = (ids[0] == model.config.cand1_prefix_id).nonzero().item()
    torch.testing.assert_close(encodings.first_B2H[0, 32:], encodings.tokens_BLH[0, place])
    assert model.compare(encodings).abs().item() > 1e-6


def test_padding_and_order_do_not_change_a_score(oracle_tokenizer) -> None:
    torch.manual_seed(0)
    model = build_pairrm(OracleSize(hidden=32, layers=2, heads=2, feed_forward=32), oracle_tokenizer).eval()
    rows = [
        segment_ids(oracle_tokenizer, SOURCE, PROMPT)
        + segment_ids(oracle_tokenizer, FIRST, "Perhaps brie." * n)
        + segment_ids(oracle_tokenizer, SECOND, "Perhaps rice.")
        for n in (3, 1, 2)
    ]
    together = compare_rows(model, rows)
    alone = torch.cat([compare_rows(model, [row]) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_word_vectors_put_words_of_one_topic_together() -> None:
    texts = [[0, 1, 9], [0, 2, 9], [1, 2, 9], [3, 4, 9], [3, 5, 9], [4, 5, 9]] * 5
    vectors = torch.nn.functional.normalize(co_occurrence_vectors(texts, 10, 4, seed=0), dim=-1)
    assert (vectors[0] @ vectors[1]) > (vectors[0] @ vectors[3]) + 0.5
    torch.testing.assert_close(co_occurrence_vectors(texts, 10, 4, 0), co_occurrence_vectors(texts, 10, 4, 0))


def test_an_epoch_has_every_row_once_in_batches_of_similar_length() -> None:
    lengths = [i % 50 for i in range(203)]
    batches = list(similar_length_batches(lengths, 8, random.Random(0)))
    assert sorted(i for batch in batches for i in batch) == list(range(203))
    spread = sum(max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches) / len(batches)
    assert spread < 15


def test_learning_rate_rises_then_falls_to_its_floor() -> None:
    factors = [warm_up_then_linear(step, 100, 10) for step in range(101)]
    assert factors.index(max(factors)) in (8, 9)
    assert factors[0] == pytest.approx(0.1)
    assert factors[-1] == pytest.approx(0.03)
