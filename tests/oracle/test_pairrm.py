"""Our PairRM scorer against llm-blender's own, and its promises: independence, truncation, layouts, refusals."""

import itertools
import json
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.errors import UserError
from nemo_sspo.objective.targets import build_targets
from nemo_sspo.oracle.batching import pack, token_budget, windows
from nemo_sspo.oracle.pairrm import model as pairrm_model
from nemo_sspo.oracle.pairrm import rows as pairrm_rows
from nemo_sspo.oracle.pairrm.checkpoint import HEAD_OUTPUT, MARKERS, POSITION_IDS
from nemo_sspo.oracle.pairrm.model import PairRM, PairRMModel
from nemo_sspo.oracle.pairrm.rows import EncodedRow, RowEncoder
from nemo_sspo.oracle.protocol import Row
from tests.json_edit import edit
from tests.oracle.rows import PROMPTS, RESPONSES, all_rows
from tests.oracle.tiny_pairrm import CANDIDATE_MAX, SOURCE_MAX


def oracle(path: Path, batch_tokens: int = 512) -> PairRM:
    limits = {"source_max_tokens": SOURCE_MAX, "candidate_max_tokens": CANDIDATE_MAX}
    return PairRM(PairRMOracle(path=str(path), batch_tokens=batch_tokens, **limits), device="cpu")


def matrices(logits_R: np.ndarray) -> np.ndarray:
    k = len(RESPONSES[0])
    logits_NKK = np.zeros((len(PROMPTS), k, k), dtype=np.float32)
    first, second = zip(*itertools.permutations(range(k), 2), strict=True)
    logits_NKK[:, first, second] = logits_R.reshape(len(PROMPTS), -1)
    return logits_NKK


@pytest.fixture(scope="module")
def blender(checkpoints: dict[str, Path]) -> Any:
    """llm-blender's own ranker of the checkpoint."""
    if find_spec("llm_blender") is None:
        pytest.skip("llm-blender is not installed")
    from nemo_sspo.oracle.pairrm.blender import load_blender

    return load_blender(checkpoints["llm-blender"])


@pytest.fixture(scope="module")
def truth(blender: Any) -> np.ndarray:
    """K x K logits of llm-blender's own ranker and collator."""
    from nemo_sspo.oracle.pairrm.blender import blender_logits

    return blender_logits(blender, PROMPTS, RESPONSES)


@pytest.mark.parametrize("layout", ["hf", "llm-blender", "pickle"])
def test_logits_equal_llm_blenders(checkpoints: dict[str, Path], truth: np.ndarray, layout: str) -> None:
    preferences = oracle(checkpoints[layout]).compare(all_rows())
    assert truth.std() > 0.01, "a constant oracle would agree with anything"
    np.testing.assert_allclose(matrices(preferences.logits_R), truth, atol=1e-5, rtol=0)
    assert preferences.truncated_R.any()
    assert not preferences.truncated_R.all()


def test_bt_mean_score_gives_the_columns_of_the_official_sppo_data(checkpoints: dict[str, Path], blender: Any) -> None:
    """Its pipeline: scores s from llm-blender's rank, P_ij = 1 / (1 + exp(s_j - s_i)), row means, argmax and argmin."""
    scores = blender.rank(PROMPTS, RESPONSES, return_scores=True, batch_size=1, disable_tqdm=True)
    logits = matrices(oracle(checkpoints["hf"]).compare(all_rows()).logits_R)
    supervision = build_targets(
        logits, np.zeros_like(logits), symmetrization="sum", estimator="bt_mean_score", gate_weight=lambda s: 1 - s
    )
    for n, score in enumerate(scores):
        p = [[1 / (1 + np.exp(other - own)) for other in score] for own in score]
        chosen, rejected = int(np.argmax(score)), int(np.argmin(score))
        assert (supervision.chosen[n], supervision.rejected[n]) == (chosen, rejected)
        assert supervision.target_pair[n] == pytest.approx(p[chosen][rejected], abs=1e-5)  # chosen_probs
        assert supervision.target_chosen[n] == pytest.approx(np.mean(p[chosen]), abs=1e-5)  # chosen_probs_win
        assert supervision.target_rejected[n] == pytest.approx(np.mean(p[rejected]), abs=1e-5)  # chosen_probs_lose


def test_a_bfloat16_backbone_keeps_its_head_in_float32(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[PairRMModel] = []
    compute_on_cpu = PairRMModel.compute_on_cpu
    monkeypatch.setattr(PairRMModel, "compute_on_cpu", lambda self: models.append(self) or compute_on_cpu(self))
    settings = PairRMOracle(
        path=str(checkpoints["hf"]),
        precision="bfloat16",
        source_max_tokens=SOURCE_MAX,
        candidate_max_tokens=CANDIDATE_MAX,
    )
    scorer = PairRM(settings, device="cpu")
    (model,) = models
    backbone = {parameter.dtype for parameter in model.pretrained_model.parameters()}
    head = {parameter.dtype for parameter in model.head_layer.parameters()}
    assert (backbone, head) == ({torch.bfloat16}, {torch.float32})
    logits = scorer.compare(all_rows()).logits_R
    assert (logits != torch.from_numpy(logits).bfloat16().float().numpy()).mean() > 0.9, "rounded to bfloat16"
    np.testing.assert_allclose(logits, oracle(checkpoints["hf"]).compare(all_rows()).logits_R, atol=0.05)


def test_a_row_does_not_depend_on_its_neighbours(checkpoints: dict[str, Path]) -> None:
    rows = all_rows()
    together = oracle(checkpoints["hf"], batch_tokens=100_000).compare(rows).logits_R
    alone = oracle(checkpoints["hf"], batch_tokens=1)
    np.testing.assert_allclose(alone.compare(rows).logits_R, together, atol=1e-6, rtol=0)
    some = rows[7:60:9]
    np.testing.assert_allclose(alone.compare(some[::-1]).logits_R[::-1], together[7:60:9], atol=1e-6, rtol=0)


def test_equal_rows_are_computed_once(checkpoints: dict[str, Path]) -> None:
    rows = all_rows()[:6]
    done: list[int] = []
    preferences = oracle(checkpoints["hf"]).compare([*rows, *rows, rows[0]], done.append)
    assert preferences.unique_rows == len(set(rows))
    np.testing.assert_array_equal(preferences.logits_R[6:12], preferences.logits_R[:6])
    assert done[-1] == 13
    assert done == sorted(done)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[EncodedRow]]:
    """What scorers read, a list a window."""
    calls: list[list[EncodedRow]] = []
    encode = RowEncoder.encode

    def record(self: RowEncoder, rows: Sequence[Row]) -> list[EncodedRow]:
        calls.append(list(encode(self, rows)))
        return calls[-1]

    monkeypatch.setattr(RowEncoder, "encode", record)
    return calls


def test_rows_and_texts_are_held_in_windows(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, encoded: list[list[EncodedRow]]
) -> None:
    """So memory does not grow with the rows of a call; the numbers and the progress are those of one window."""
    rows = all_rows()
    scorer = oracle(checkpoints["hf"])
    whole, done = scorer.compare(rows), []
    monkeypatch.setattr(pairrm_model, "WINDOW_ROWS", 7)
    monkeypatch.setattr(pairrm_rows, "TEXTS_AT_ONCE", 3)
    tokenized: list[int] = []
    tokenize = PreTrainedTokenizerBase.__call__

    def record(self: PreTrainedTokenizerBase, texts: list[str], **named: Any) -> Any:
        tokenized.append(len(texts))
        return tokenize(self, texts, **named)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", record)
    encoded.clear()
    cut = scorer.compare(rows, done.append)
    np.testing.assert_allclose(cut.logits_R, whole.logits_R, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(cut.truncated_R, whole.truncated_R)
    # A prompt's 20 rows stay in one window, and so its repeated rows are found.
    assert list(map(len, encoded)) == [len(set(rows[start : start + 20])) for start in range(0, 100, 20)]
    assert max(tokenized) == 3
    assert cut.unique_rows == whole.unique_rows == len(set(rows))
    assert done == sorted(done)
    assert done[-1] == len(rows)


def test_room_that_the_prompt_leaves_goes_to_the_responses(
    checkpoints: dict[str, Path], encoded: list[list[EncodedRow]]
) -> None:
    """A prompt of n tokens, marker counted, leaves each response 24 + (48 - n - 2) // 2 with its [CLS] and [SEP]."""
    scorer = oracle(checkpoints["hf"])
    word = "[MASK]"  # one token, whatever stands beside it
    for prompt_words in (0, 1, 20, 45, 46, 60):
        prompt = word * prompt_words
        n = min(1 + prompt_words, SOURCE_MAX - 2)
        room = CANDIDATE_MAX + (SOURCE_MAX - n - 2) // 2 - 2
        for response_words, cut in ((room - 1, False), (room, True)):
            response = word * response_words
            scorer.compare([Row(prompt, response, "ok")])
            (row,) = encoded[-1]
            assert len(row.first) == room
            assert row.truncated is (cut or 1 + prompt_words > n)


def test_a_checkpoint_is_read_with_the_limits_of_its_own_config(
    checkpoints: dict[str, Path], tmp_path: Path, encoded: list[list[EncodedRow]]
) -> None:
    """llm-blender takes them from there; a setting goes before."""

    def limits(path: Path, **settings: int) -> tuple[int, int]:
        PairRM(PairRMOracle(path=str(path), **settings), device="cpu").compare([Row(*3 * ["long " * 1500])])
        (row,) = encoded[-1]
        return len(row.source) + 2, len(row.first) + 2  # with [CLS] and [SEP]

    assert limits(checkpoints["llm-blender"]) == (SOURCE_MAX, CANDIDATE_MAX)
    assert limits(checkpoints["llm-blender"], candidate_max_tokens=30) == (SOURCE_MAX, 30)
    assert limits(checkpoints["hf"]) == (1224, 412)
    path = copy(checkpoints, "hf", tmp_path / "oracle")
    edit(path / "config.json", source_maxlength="many")
    with pytest.raises(UserError, match=r"config\.json: source_maxlength='many' is no number of tokens"):
        oracle(path)


def test_a_response_cannot_write_markers(checkpoints: dict[str, Path]) -> None:
    """Marker text inside a response is a space to the oracle, as llm-blender makes of the separator."""
    scorer = oracle(checkpoints["hf"])
    for marker in (*MARKERS, "[SEP]"):
        attack, plain = (Row("q", f"bad {filler} good", "fair") for filler in (marker, " "))
        logits = scorer.compare([attack, plain]).logits_R
        assert logits[0] == pytest.approx(logits[1], abs=1e-6)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=50), budget=st.integers(1, 200))
def test_packing_is_a_partition_within_the_budget(lengths: list[int], budget: int) -> None:
    array = np.array(lengths)
    batches = list(pack(array, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * array[batch].max() <= budget for batch in batches)
    longest = [int(array[batch].max()) for batch in batches]
    assert longest == sorted(longest, reverse=True)


@given(prompts=st.lists(st.sampled_from("abc"), max_size=40), least=st.integers(1, 12))
def test_windows_are_a_partition_that_keeps_a_prompts_rows_together(prompts: list[str], least: int) -> None:
    rows = [Row(prompt, "first", "second") for prompt in prompts]
    cut = list(windows(rows, least))
    assert [row for window in cut for row in rows[window]] == rows
    assert all(window.stop - window.start >= least for window in cut[:-1])
    assert all(rows[window.stop - 1].prompt != rows[window.stop].prompt for window in cut[:-1])
    # The shortest such windows: before a window's last prompt there were too few rows.
    for window in cut[:-1]:
        last = rows[window.stop - 1].prompt
        earlier = [row.prompt == last for row in rows[window]]
        run = next((length for length, same in enumerate(reversed(earlier)) if not same), len(earlier))
        assert window.stop - run < window.start + least


def test_a_processor_is_given_smaller_batches_than_a_gpu_unless_told() -> None:
    assert [token_budget(None, torch.device(name)) for name in ("cpu", "cuda")] == [2048, 16384]
    assert token_budget(100, torch.device("cpu")) == 100


def copy(checkpoints: dict[str, Path], layout: str, to: Path) -> Path:
    shutil.copytree(checkpoints[layout], to)
    return to


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("hf", {"model_type": "bert", "architectures": ["BertModel"]}, r"not a PairRM \(found \['BertModel'\]\)"),
        ("hf", {"cand1_prefix_id": None}, "not a PairRM"),
        ("hf", {"cand1_prefix_id": 3}, r"its tokenizer has <\|candidate1\|> as \d+, config.json says 3"),
        (
            "hf",
            {"intermediate_size": 16},
            r"intermediate\.dense\.weight is 64 x 32, config.json says 16 x 32",
        ),
        ("hf", {"num_hidden_layers": 3}, "lack layer 2, config.json has 3 layers; the checkpoint is incomplete"),
        ("hf", {"num_hidden_layers": 1}, "its weights hold layer 1, config.json has 1 layers"),
        ("llm-blender", {"ranker_type": "deberta-rm"}, "only a pairranker on DeBERTa"),
        ("llm-blender", {"model_type": "roberta"}, "only a pairranker on DeBERTa"),
        ("llm-blender", {"model_name": "/no/such/backbone"}, "no such backbone directory"),
    ],
)
def test_another_architecture_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path, layout: str, changes: dict, message: str
) -> None:
    path = copy(checkpoints, layout, tmp_path / "oracle")
    edit(path / "config.json", **changes)
    with pytest.raises(UserError, match=message):
        oracle(path)


def test_incomplete_checkpoints_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        oracle(tmp_path / "absent")
    path = copy(checkpoints, "hf", tmp_path / "oracle")
    state = load_file(path / "model.safetensors")
    save_file({k: v for k, v in state.items() if k != HEAD_OUTPUT}, path / "model.safetensors")
    with pytest.raises(UserError, match=f"not the weights of a PairRM: no {HEAD_OUTPUT}"):
        oracle(path)
    (path / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(UserError, match="not a safetensors file, or cut short"):
        oracle(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="the checkpoint is incomplete"):
        oracle(path)
    (path / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        oracle(path)


@pytest.mark.parametrize("layout", ["hf", "llm-blender", "pickle"])
def test_every_weight_has_its_place(checkpoints: dict[str, Path], tmp_path: Path, layout: str) -> None:
    """Fewer layers in the backbone than in the weights, or a tensor that no part reads: the files do not fit."""
    path = copy(checkpoints, layout, tmp_path / "oracle")
    if layout != "hf":
        backbone = shutil.copytree(json.loads((path / "config.json").read_text())["model_name"], tmp_path / "small")
        edit(path / "config.json", model_name=str(backbone))
        edit(backbone / "config.json", num_hidden_layers=1)
    else:
        edit(path / "config.json", num_hidden_layers=1)
    with pytest.raises(UserError, match=r"hold.* layer 1,|holds pretrained_model\.encoder\.layer\.1\."):
        oracle(path)
    edit((path if layout == "hf" else backbone) / "config.json", num_hidden_layers=2, intermediate_size=16)
    with pytest.raises(UserError, match=r"config\.json says 16 x 32|shapes other than config\.json's"):
        oracle(path)
    edit((path if layout == "hf" else backbone) / "config.json", intermediate_size=64)
    change_weights(path, {"extra_head.weight": torch.zeros(2)})
    with pytest.raises(UserError, match=r"holds extra_head\.weight, of which .*config\.json knows nothing"):
        oracle(path)


def test_positions_that_older_versions_of_transformers_stored_are_no_weight(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    path = copy(checkpoints, "pickle", tmp_path / "oracle")
    rows = all_rows()[:4]
    change_weights(path, {POSITION_IDS: torch.arange(512)[None]})
    np.testing.assert_array_equal(oracle(path).compare(rows).logits_R, oracle(checkpoints["hf"]).compare(rows).logits_R)
    change_weights(path, {POSITION_IDS: torch.arange(512)[None] + 1})
    with pytest.raises(UserError, match=r"position_ids does not count 0, 1, 2"):
        oracle(path)


def test_an_adapter_that_is_not_merged_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = copy(checkpoints, "hf", tmp_path / "oracle")
    (path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"adapter_config\.json asks for an adapter that is not merged"):
        oracle(path)


def change_weights(path: Path, added: dict[str, torch.Tensor]) -> None:
    """Write the checkpoint's weights again with further tensors."""
    if (path / "pytorch_model.bin").is_file():
        torch.save(torch.load(path / "pytorch_model.bin", weights_only=True) | added, path / "pytorch_model.bin")
    else:
        save_file(load_file(path / "model.safetensors") | added, path / "model.safetensors")


class Bomb:
    """Unpickling this would make a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_carries_code_is_refused_and_not_run(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = copy(checkpoints, "pickle", tmp_path / "oracle")
    torch.save({"bomb": Bomb(tmp_path / "exploded")}, path / "pytorch_model.bin")
    with pytest.raises(UserError, match="not a plain state dict"):
        oracle(path)
    assert not (tmp_path / "exploded").exists()
