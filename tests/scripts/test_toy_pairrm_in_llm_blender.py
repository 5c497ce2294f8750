"""The toy oracle's directory is one that llm-blender's own class reads, with the same logits."""

import pytest

torch = pytest.importorskip("torch")
hub = pytest.importorskip("transformers.utils.hub")

from scripts.toy import dataset  # noqa: E402
from scripts.toy.batching import pad_rows  # noqa: E402
from scripts.toy.pairrm import FIRST, SECOND, SOURCE, OracleSize, build_pairrm, segment_ids  # noqa: E402
from scripts.toy.tokenizer import train_oracle_tokenizer  # noqa: E402


@pytest.fixture
def their_class(monkeypatch):
    # llm-blender 0.0.2 imports a constant that transformers 5 no longer has.
    monkeypatch.setattr(hub, "TRANSFORMERS_CACHE", ".", raising=False)
    return pytest.importorskip("llm_blender.pair_ranker.pairrm", exc_type=ImportError).DebertaV2PairRM


def test_llm_blender_loads_it_strictly_with_equal_logits(their_class, tmp_path) -> None:
    rows = dataset.read("instructions.jsonl")[:200]
    tokenizer = train_oracle_tokenizer((text for row in rows for text in row.values()), 1024)
    torch.manual_seed(0)
    ours = build_pairrm(OracleSize(hidden=32, layers=2, heads=2, feed_forward=64), tokenizer).eval()
    torch.nn.init.normal_(ours.head_layer[4].weight, std=3.0)
    ours.save_pretrained(tmp_path)
    theirs, report = their_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))

    ids_BL, mask_BL = pad_rows(
        [
            segment_ids(tokenizer, SOURCE, a["prompt"])
            + segment_ids(tokenizer, FIRST, a["response"])
            + segment_ids(tokenizer, SECOND, b["response"])
            for a, b in zip(rows[::2], rows[1::2], strict=True)
        ],
        tokenizer.pad_token_id,
    )
    with torch.no_grad():
        mine_B = ours(ids_BL, mask_BL)
        theirs_B = theirs.eval()(input_ids=ids_BL, attention_mask=mask_BL).logits
    assert mine_B.std() > 0.01
    torch.testing.assert_close(mine_B, theirs_B, atol=1e-5, rtol=0)
