"""The first part of make rehearse: rehearse the presets' ranks, write their ledgers, and print the table."""

from __future__ import annotations

from collections.abc import Sequence

from tests.rehearsal.cases import preset_cases
from tests.rehearsal.committed import commit, committed, differences
from tests.rehearsal.ledger import Ledger
from tests.rehearsal.run import rehearse

GPU_BYTES = 80 * 10**9
_GIB = 2**30
_HEAD = (
    "| rank | weights | gradients | optimizer | peak of step 1 | peak of step 2 | of it activations | of it head "
    "| TFLOP in layers | in the head | in attention | GiB sent | fits 80 GB |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)
_FAULTS = """
| planted fault | what happens | in test_faults.py |
|---|---|---|
| a tensor of the host in a collective | the rank dies | test_a_tensor_of_the_host_in_a_collective |
| an unknown key | the policy is refused | test_a_key_of_transformer_engine_that_conversion_does_not_know |
| a float64 in a microbatch | it is counted | test_a_float64 |
| the host waits in a microbatch | it is counted | test_the_host_waits_in_a_microbatch |
| logits of all tokens | the largest tensor is one of them | test_logits_of_all_tokens |
| one all-reduce too many | it is counted | test_one_all_reduce_too_many |
"""


def row(ledger: Ledger) -> str:
    first, second = ledger.steps
    held = [f"{second.live[kind] / _GIB:.2f}" for kind in ("weights", "gradients", "optimizer")]
    peaks = [first.peak_bytes, second.peak_bytes, second.peak["activations"], second.peak["head"]]
    flops = [f"{second.flops[place] / 1e12:,.1f}" for place in ("layers", "head", "attention")]
    sent = sum(second.bytes_sent.values()) / _GIB
    fits = "yes" if ledger.peak_bytes < GPU_BYTES else "no"
    cells = [ledger.key, *held, *(f"{size / _GIB:.2f}" for size in peaks), *flops, f"{sent:.2f}", fits]
    return f"| {' | '.join(cells)} |\n"


def table(ledgers: Sequence[Ledger]) -> str:
    return _HEAD + "".join(map(row, ledgers))


def main() -> None:
    print(_HEAD, end="")
    for case in preset_cases():
        known, found = committed(case.key), rehearse(case)
        print(row(found), end="", flush=True)
        for line in differences(known, found) if known is not None else []:
            print(f"{case.key}: {line}")
        commit(found)
    print(_FAULTS)


if __name__ == "__main__":
    main()
