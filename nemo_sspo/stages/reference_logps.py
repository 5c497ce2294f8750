"""Log-probs of the reference policy for every pair: what training measures the policy's change against."""

import pyarrow as pa

from nemo_sspo.artifacts.layout import HF_MODEL, NEMO_CHECKPOINT, REFERENCE
from nemo_sspo.artifacts.schema import REFERENCE as REFERENCE_SCHEMA
from nemo_sspo.artifacts.store import write_table
from nemo_sspo.megatron.pairs import PairTable
from nemo_sspo.megatron.ranks import on_every_rank
from nemo_sspo.megatron.reference import ReferenceJob, reference_rank
from nemo_sspo.stages.context import StageContext


def run(context: StageContext) -> None:
    """Compute on all ranks of the training layout; rank 0 writes the table."""
    experiment, checkpoint = context.experiment, context.input("checkpoint")
    pairs = PairTable.read(context.input("build_pairs").path)
    job = ReferenceJob(
        pairs,
        checkpoint.file(NEMO_CHECKPOINT),
        checkpoint.file(HF_MODEL),
        experiment.train,
        experiment.parallel,
        experiment.precision,
        context.progress,
    )
    logps_N2 = on_every_rank(lambda: reference_rank(job), experiment.parallel.world_size)
    if logps_N2 is None:
        return
    chosen, rejected = logps_N2.T.tolist()
    chosen_tokens, rejected_tokens = zip(*pairs.response_tokens(), strict=True)
    columns = [pairs.pair_ids, chosen, rejected, chosen_tokens, rejected_tokens]
    write_table(context.output.path / REFERENCE, pa.table(columns, schema=REFERENCE_SCHEMA))
    context.output.rows = len(pairs)
    context.output.counts |= {
        "pairs": len(pairs),
        "logp_per_token": (sum(chosen) + sum(rejected)) / (sum(chosen_tokens) + sum(rejected_tokens)),
    }
