"""What the layers say, over tp and cp, with the embedding and the head at their ends.

Tensor parallelism. A layer has two pairs of products: a column-parallel one (query-key-value; gate and up), then a
row-parallel one (projection; down). Without sequence parallelism each pair sums T x H once forward, behind the
row-parallel product, and once backward, behind the column-parallel one. With it, norms see T / TP tokens, and each sum
becomes a reduce-scatter of T x H and an all-gather of T / TP x H. Transformer Engine keeps only the part of the
column-parallel input, and gathers it again for the weight's gradient:

    forward    all-gather before column, reduce-scatter behind row
    backward   all-gather of the gradient before row; all-gather of the input, reduce-scatter behind column

Full recomputation runs forward twice; selective repeats attention alone, which is no matter of tp.

FP8 by tensor: what is gathered has one byte an element, under a scale that all ranks take from the largest value of
any, one number in fp32 for each product's input, and for each gradient before row. FP8 by block: bytes and scales
travel together, one scale in fp32 for 128 elements along the rows or along the columns, as the product reads them:
inputs in one order at a time, gradients in both, for the input's gradient and the weight's. Scattered sums are bf16.

LoRA: the matrices are frozen, so no input is gathered again, and the first layer of all sums no gradient of its input,
unless it is recomputed. Transformer Engine hands its norm's output to the adapter, which gathers it in bf16; FP8 by
tensor then scales it twice, as the rank's part and whole. r is the adapter's rank. Behind A of a column-parallel matrix
T x r / TP is gathered, behind that of a row-parallel one T x r is summed; B of the latter gathers T x H / TP. Backward
both sum T x r, and the gradient of the row-parallel one's output is gathered.

Embedding, tp: its rows are shared, so the first stage sums forward, with sequence parallelism by reduce-scatter, and
gathers the gradient backward, if it is trained. Head, tp: copies forward and sums backward, or gathers forward and
reduce-scatters backward.

Context parallelism: keys and values of T tokens go round the ring, CP - 1 times forward and CP - 1 times again
backward, with their gradients beside them from the second time on, which need one more time to come home.
Flex-attention (shared prompts, capped logits) has no ring: it gathers keys, and values, and reduce-scatters their
gradients.
"""

from __future__ import annotations

from tests.rehearsal.case import Case
from tests.rehearsal.expected.batch import Batch
from tests.rehearsal.expected.place import Place, head_channels, layers_of
from tests.rehearsal.expected.said import BF16, FP8, FP32, Said

_BLOCK = 128


def layers(said: Said, case: Case, batch: Batch) -> None:
    if case.parallel.sequence:
        _with_sequence_parallelism(said, case, batch)
    elif case.parallel.tensor > 1:
        _without_sequence_parallelism(said, case, batch)
    if case.parallel.context > 1:
        (_gathered_keys if _takes_flex_attention(case) else _ring)(said, case, batch)


def _forwards(case: Case) -> int:
    return 2 if case.train.recompute == "full" else 1


def _without_sequence_parallelism(said: Said, case: Case, batch: Batch) -> None:
    if case.train.peft:
        raise ValueError(f"{case.key}: LoRA under sequence parallelism alone")
    place = Place.of(case)
    whole = batch.tokens * case.model["hidden_size"] * BF16
    said.add("allreduce", "tp", batch.microbatches * layers_of(case) * (2 * _forwards(case) + 2), whole)
    said.add("allreduce", "tp", batch.microbatches * (place.is_first + place.is_last), whole)


def _with_sequence_parallelism(said: Said, case: Case, batch: Batch) -> None:
    place, tensor, is_frozen = Place.of(case), case.parallel.tensor, bool(case.train.peft)
    forwards, every = _forwards(case), batch.microbatches * layers_of(case)
    part = batch.tokens * case.model["hidden_size"] // tensor
    whole = part * tensor * BF16
    if is_frozen:
        said.add("allgather_base", "tp", every * 2 * forwards, part * BF16)
        _adapters(said, case, batch)
    else:
        _gather(said, case, every * (2 * forwards + 2), part, orders=1)
    _gather(said, case, every * 2, part, orders=1 if is_frozen else 2)
    if _fp8(case) == "tensorwise":
        scales_of_inputs = 2 if is_frozen else 1
        said.add("allreduce", "tp", every * (2 * forwards * scales_of_inputs + 2), FP32)
    said.add("reduce_scatter_base", "tp", every * (2 * forwards + 2), whole)
    if is_frozen and place.is_first and case.train.recompute != "full":
        said.add("reduce_scatter_base", "tp", -batch.microbatches, whole)
    # Embedding and head.
    said.add(
        "allgather_base", "tp", batch.microbatches * (place.is_first * (not is_frozen) + place.is_last), part * BF16
    )
    said.add("reduce_scatter_base", "tp", batch.microbatches * (place.is_first + place.is_last), whole)


def _fp8(case: Case) -> str | None:
    return case.precision.recipe if case.precision.kind == "fp8" else None


def _gather(said: Said, case: Case, count: int, elements: int, *, orders: int) -> None:
    """Of what a layer's product reads, in one order of it or in both."""
    if _fp8(case) == "blockwise":
        said.add("allgather_into_tensor_coalesced", "tp", count, orders * elements * (FP8 + FP32 / _BLOCK))
    else:
        said.add("allgather_base", "tp", count, elements * (FP8 if _fp8(case) else BF16))


def _adapters(said: Said, case: Case, batch: Batch) -> None:
    forwards, every = _forwards(case), batch.microbatches * layers_of(case)
    narrow = batch.tokens * case.train.lora_rank * BF16
    wide = batch.tokens * case.model["hidden_size"] * BF16 // case.parallel.tensor
    said.add("allgather_base", "tp", every * 2 * forwards, narrow // case.parallel.tensor)
    said.add("allgather_base", "tp", every * (2 * forwards + 2), wide)
    said.add("allreduce", "tp", every * (2 * forwards + 4), narrow)


def _takes_flex_attention(case: Case) -> bool:
    return case.train.share_prompt or case.model["model_type"] == "gemma2"


def _attentions(case: Case) -> int:
    """How often attention runs forward."""
    return 1 if case.train.recompute == "none" else 2


def _keys(case: Case, batch: Batch) -> int:
    """Bytes of the keys of one layer's tokens, or of the values."""
    return batch.tokens * case.model["num_key_value_heads"] // case.parallel.tensor * head_channels(case) * BF16


def _ring(said: Said, case: Case, batch: Batch) -> None:
    every, turns = batch.microbatches * layers_of(case), case.parallel.context - 1
    of_ring = 2 * _keys(case, batch)
    for operation in ("send", "recv"):
        said.add(operation, "cp", every * _attentions(case) * turns, of_ring)
        # Backward, the first turn has keys and values, the last one their gradients, those between have both.
        said.add_uneven(operation, "cp", every * (turns + 1), every * 2 * turns * of_ring)


def _gathered_keys(said: Said, case: Case, batch: Batch) -> None:
    every, keys = batch.microbatches * layers_of(case), _keys(case, batch)
    said.add("allgather_base", "cp", every * 2 * _attentions(case), keys)
    said.add("reduce_scatter_base", "cp", every * 2, keys * case.parallel.context)
