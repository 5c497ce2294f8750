"""Log-probs of the reference policy for every pair: training measures the policy's change against them."""

import pyarrow as pa
import torch

from nemo_sspo.artifacts.facts.training import ReferenceFacts
from nemo_sspo.artifacts.layout import HF_MODEL
from nemo_sspo.artifacts.tables import PAIRS, REFERENCE
from nemo_sspo.megatron.batches.fit import require_fit
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import binding
from nemo_sspo.megatron.jobs import ReferenceJob
from nemo_sspo.megatron.runtime.ranks import on_every_rank
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.sampling.rollout_logps import rollout_logps
from nemo_sspo.stages.training.checked_reference import RolloutLogps, reference_logps, sampled_rows
from nemo_sspo.stages.training.policy_checkpoint import policy_checkpoint


def run(context: StageContext) -> None:
    """Compute on all ranks of the training layout; rank 0 writes the table."""
    experiment, checkpoint = context.experiment, context.input("checkpoint")
    pairs = PairTable.read(context.input("build_pairs").path)
    rollout = _rollout(context, len(pairs)) if experiment.train.reference_source == "rollout_checked" else None
    job = ReferenceJob(
        pairs,
        policy_checkpoint(context),
        checkpoint.file(HF_MODEL),
        experiment.train,
        experiment.parallel,
        experiment.precision,
        context.progress,
    )
    trainer = binding(experiment.trainer)
    # Report a wrong policy or layout as one line, not as a traceback of every rank.
    trainer.refuse(job)
    require_fit(pairs, job.hf_dir)
    found = on_every_rank(
        lambda: reference_logps(job, rollout, trainer.reference_logps), experiment.parallel.world_size
    )
    if found is None:
        return
    chosen, rejected = found.logps_P2.T.tolist()
    chosen_tokens, rejected_tokens = zip(*pairs.response_tokens(), strict=True)
    columns = {
        "pair_id": pairs.pair_ids,
        "chosen_logp": chosen,
        "rejected_logp": rejected,
        "chosen_tokens": chosen_tokens,
        "rejected_tokens": rejected_tokens,
    }
    REFERENCE.write(context.output.path, columns)
    context.output.rows = len(pairs)
    context.output.facts = ReferenceFacts(
        pairs=len(pairs),
        logp_per_token=(sum(chosen) + sum(rejected)) / (sum(chosen_tokens) + sum(rejected_tokens)),
        source=found.source,
        checked_pairs=found.checked,
        largest_difference=found.largest_difference,
        mean_difference=found.mean_difference,
    )


def _rollout(context: StageContext, pairs: int) -> RolloutLogps:
    """The log-probs of the pairs' responses from the engine that sampled them."""
    train = context.experiment.train
    table = PAIRS.read(context.input("build_pairs").path).combine_chunks()
    ids = [pa.concat_arrays(table.column(side).chunks) for side in ("chosen_id", "rejected_id")]
    return RolloutLogps(
        torch.from_numpy(rollout_logps(ids, context.inputs["rollout"])),
        sampled_rows(pairs, train.reference_check_share, context.seed),
        train.reference_tolerance,
    )
