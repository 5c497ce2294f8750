from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nemo.collections.llm")

import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM

from nemo_sspo.config.stages import Parallel
from tests.megatron.nemo.worlds import reference


def hugging_face_logps(policy: Path, pairs: pa.Table) -> torch.Tensor:
    """Sums of log-softmax over each response's tokens, one sequence at a time and without padding. [N, 2]."""
    # The other implementations leave out the caps of Gemma 2.
    model = AutoModelForCausalLM.from_pretrained(policy, attn_implementation="eager")
    sums = []
    for pair in pairs.to_pylist():
        for response in (pair["chosen_token_ids"], pair["rejected_token_ids"]):
            prompt = pair["prompt_token_ids"]
            tokens = torch.tensor([prompt + response])
            with torch.no_grad():
                logp_SV = model(tokens).logits[0].log_softmax(-1)
            sums.append(logp_SV[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None]).sum())
    return torch.stack(sums).view(-1, 2)


@pytest.mark.parametrize(
    "parallel",
    [
        Parallel(),
        Parallel(tensor=2, pipeline=2),
        Parallel(pipeline=2, virtual_pipeline=2),
        Parallel(tensor=2, sequence=True, data=2),
    ],
    ids=["one rank", "TP2 PP2", "PP2 VPP2", "TP2 SP DP2"],
)
def test_reference_is_hugging_faces_log_softmax(
    policy: Path, imported: Path, pairs: pa.Table, parallel: Parallel
) -> None:
    found_N2 = reference(pairs, imported, parallel)
    assert found_N2.dtype == torch.float32
    torch.testing.assert_close(found_N2, hugging_face_logps(policy, pairs), rtol=1e-5, atol=1e-5)
