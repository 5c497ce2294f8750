"""Everything that a run's page shows, gathered once."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nemo_sspo.artifacts.diagnostics import Diagnostics
from nemo_sspo.artifacts.knobs import knob_changes
from nemo_sspo.artifacts.selection import EarlyStop, SelectionResult
from nemo_sspo.report.facts.evaluation import Evaluated, Sampled, evaluations, sampled
from nemo_sspo.report.facts.gate_view import GateView, diagnostics, gate_view
from nemo_sspo.report.facts.held_out import HeldOutSample, held_out_sample
from nemo_sspo.report.facts.iteration import IterationFacts, of_iteration
from nemo_sspo.report.facts.record import RunRecord
from nemo_sspo.report.facts.samples import SamplePrompt, sample_prompts
from nemo_sspo.report.facts.selection import selection
from nemo_sspo.report.facts.settings import Digest, Setting, digests, settings, software
from nemo_sspo.report.facts.supervision import Supervision, dropped_reasons, supervision
from nemo_sspo.report.facts.timing import Running, Span, StageCost, running_steps, spans, stage_costs, wall_seconds
from nemo_sspo.report.facts.training import (
    ReferenceLogps,
    Step1Identity,
    TrainingCurve,
    reference_logps,
    step1_identities,
    training_curves,
)
from nemo_sspo.report.facts.verdict import Evidence, Finding, findings

SAMPLE_PROMPTS = 100
"""Prompts per iteration to read through, unless asked otherwise."""


HELD_OUT_PROMPTS = 20
"""Held-out prompts with the base's and the new answer, at most."""


@dataclass(frozen=True)
class RunFacts:
    """One run at one moment."""

    name: str
    gathered_at: str
    """ISO 8601, UTC."""
    planned: int
    """Steps of the whole run; 0 when its configuration is of another version."""
    published: int
    pending: list[str]
    running: list[Running]
    failed: dict[str, str]
    """Steps that failed and have not begun again, and why."""
    iterations_planned: int
    iterations: list[int]
    """Those that have begun."""
    method: dict[str, str]
    """Policy, oracle, loss, gate, … in words."""
    prepared: dict[str, Any]
    """What `prepare_prompts` has counted; empty before it is published."""
    spans: list[Span]
    costs: list[StageCost]
    wall_seconds: float | None
    references: list[ReferenceLogps]
    curves: list[TrainingCurve]
    identities: list[Step1Identity]
    evaluations: list[Evaluated]
    selections: dict[int, SelectionResult]
    """By iteration."""
    stopped: EarlyStop | None
    """Where the run has ended before its last iteration."""
    result: int
    """The newest policy that is exported, or the one that an early stop names; 0 is the base."""
    sampled: list[Sampled]
    supervisions: list[Supervision]
    gate_views: list[GateView]
    diagnosed: dict[int, Diagnostics]
    """By iteration."""
    dropped: dict[int, dict[str, int]]
    """Prompts without a pair by iteration and reason."""
    findings: list[Finding]
    changed: list[str]
    """Knobs that had another value in earlier steps, a line each."""
    settings: list[Setting]
    digests: list[Digest]
    software: list[tuple[str, str, list[str]]]
    """Package, version, stages."""
    samples: list[SamplePrompt]
    held_out: HeldOutSample
    unreadable: list[str]

    @property
    def selects(self) -> bool:
        """Whether checkpoints are chosen in this run."""
        return bool(self.selections) or any("select_model" in name for name in self.pending)

    @property
    def finished(self) -> bool:
        """Whether every planned step is published, or left out after an early stop."""
        return bool(self.planned) and not self.pending

    def of(self, iteration: int) -> IterationFacts:
        """Of one iteration; 0 is the preparation, of which only costs are known."""
        return IterationFacts(
            iteration=iteration,
            sampled=of_iteration(self.sampled, iteration),
            pairs=of_iteration(self.supervisions, iteration),
            dropped=self.dropped.get(iteration),
            reference=of_iteration(self.references, iteration),
            curve=of_iteration(self.curves, iteration),
            identity=of_iteration(self.identities, iteration),
            selection=self.selections.get(iteration),
            evaluated=of_iteration(self.evaluations, iteration),
            costs=[cost for cost in self.costs if cost.iteration == iteration],
        )


def evidence(run: RunRecord) -> Evidence:
    """What the rules of the verdict look at."""
    return Evidence(
        evaluations(run),
        sampled(run),
        training_curves(run),
        step1_identities(run),
        {i: dropped for i in run.iterations if (dropped := dropped_reasons(run, i)) is not None},
        {i: diagnosis for i in run.iterations if (diagnosis := diagnostics(run, i)) is not None},
        run.stopped,
        run.failed,
    )


def gather(run: RunRecord, *, sample_count: int = SAMPLE_PROMPTS) -> RunFacts:
    """Read everything the page shows; `sample_count` prompts per iteration."""
    iterations, looked_at = run.iterations, evidence(run)
    diagnosed = dict(looked_at.diagnosed)
    return RunFacts(
        name=run.name,
        gathered_at=datetime.now(UTC).isoformat(timespec="seconds"),
        planned=len(run.plan),
        published=len(run.steps),
        pending=run.pending,
        running=running_steps(run),
        failed=dict(run.failed),
        iterations_planned=int(run.settings.get("iterations", 0)),
        iterations=iterations,
        method=_method(run),
        prepared=next((step.manifest.counts for step in run.of("prepare_prompts", 0)), {}),
        spans=spans(run),
        costs=stage_costs(run),
        wall_seconds=wall_seconds(run),
        references=reference_logps(run),
        curves=list(looked_at.curves),
        identities=list(looked_at.identities),
        evaluations=list(looked_at.evaluations),
        selections={i: chosen for i in iterations if (chosen := selection(run, i)) is not None},
        stopped=run.stopped,
        result=run.result,
        sampled=list(looked_at.samples),
        supervisions=[found for i in iterations if (found := supervision(run, i)) is not None],
        gate_views=[view for i in iterations if (view := gate_view(run, i, diagnosed.get(i))) is not None],
        diagnosed=diagnosed,
        dropped=looked_at.dropped,
        findings=findings(looked_at),
        changed=[str(change) for change in knob_changes(step.manifest for step in run.steps)],
        settings=settings(run),
        digests=digests(run),
        software=software(run),
        samples=[prompt for i in iterations for prompt in sample_prompts(run, i, sample_count)],
        held_out=held_out_sample(run, min(sample_count, HELD_OUT_PROMPTS)),
        unreadable=sorted(set(run.unreadable)),
    )


def _method(run: RunRecord) -> dict[str, str]:
    tree = run.settings
    gate, loss, repulsion = (tree.get(name) or {} for name in ("gate", "loss", "repulsion"))
    weight = repulsion.get("weight")
    return {
        "policy": str(tree.get("policy", "?")),
        "oracle": " ".join(str((tree.get("oracle") or {}).get(name, "")) for name in ("kind", "path")).strip(),
        "loss": str(loss.get("kind", "?")),
        "gate": str(gate.get("kind", "?")),
        "repulsion": f"{repulsion.get('kind')}, λ = {weight:g}" if weight else "none",
        "samples per prompt": str((tree.get("rollout") or {}).get("samples_per_prompt", "?")),
    }
