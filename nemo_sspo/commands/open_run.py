"""A run's results as typed values: what its page shows, and the tables behind it."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nemo_sspo.artifacts.diagnostics import Diagnostics
from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.layout import HF_MODEL, RunLayout
from nemo_sspo.artifacts.tables import PAIRS
from nemo_sspo.commands.report import draw_run, run_record
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.run_directory import stored_experiment

if TYPE_CHECKING:
    import pyarrow

    from nemo_sspo.report.facts.evaluation import Evaluated
    from nemo_sspo.report.facts.gate_view import GateView
    from nemo_sspo.report.facts.record import RunRecord
    from nemo_sspo.report.facts.training import TrainingCurve

Found = TypeVar("Found")


class OpenRun:
    """A run on disk, as it was when it was opened. Policy 0 is the base, policy t the result of iteration t."""

    def __init__(self, directory: Path) -> None:
        """Read the run's settings and manifests; raises UserError where there is none."""
        self.directory = directory
        self._layout = RunLayout(directory)
        self._record: RunRecord = run_record(self._layout)

    def __repr__(self) -> str:
        return f"OpenRun({str(self.directory)!r}, iterations={self.iterations}, pending={len(self.pending)})"

    @cached_property
    def settings(self) -> Experiment:
        """Every setting, as it was resolved when the run began.

        Raises:
            UserError: another version of nemo-sspo wrote them.
        """
        stored = stored_experiment(self._layout)
        if stored is None:
            raise UserError(f"{self._layout.experiment}: of another version; open it with the one that wrote it")
        return stored

    @property
    def iterations(self) -> list[int]:
        """Iterations that have published something, from 1."""
        return self._record.iterations

    @property
    def pending(self) -> list[str]:
        """Steps that are still to be run; none of a finished run."""
        return self._record.pending

    @property
    def policies(self) -> dict[int, Path]:
        """Directory of every exported policy by iteration: a Hugging Face model."""
        exported = (self._layout.artifact("export", iteration) / HF_MODEL for iteration in self.iterations)
        return {t: path for t, path in zip(self.iterations, exported, strict=True) if path.is_dir()}

    @property
    def result(self) -> int:
        """The policy that the run ends with: the newest that is exported, or the one that an early stop names."""
        return self._record.result

    def evaluations(self) -> "dict[int, Evaluated]":
        """Each evaluated iteration's policy on the held-out prompts: wins, lengths, distinct answers."""
        from nemo_sspo.report.facts.evaluation import evaluations

        return {found.iteration: found for found in self._read(lambda: evaluations(self._record))}

    def win_rates(self, against: str = "base") -> dict[int, Interval]:
        """Mean oracle win rate on the held-out prompts by iteration, with its 95 % bootstrap interval, in [0, 1].

        Args:
            against: ``base``, ``previous``, or ``iter_k`` for an iteration between them.
        """
        found = self.evaluations().items()
        return {iteration: each.wins[against] for iteration, each in found if against in each.wins}

    def steps(self, iteration: int) -> "TrainingCurve":
        """What every optimizer step of an iteration logged: loss, log-ratios, gradient norm, a value per step.

        Raises:
            UserError: that iteration has taken no step.
        """
        from nemo_sspo.report.facts.training import training_curves

        curves = self._read(lambda: training_curves(self._record))
        return self._of("train", iteration, next((curve for curve in curves if curve.iteration == iteration), None))

    def pairs(self, iteration: int) -> "pyarrow.Table":
        """The training pairs of an iteration, with calibrated targets and what they came from (`artifacts/tables.py`).

        Raises:
            UserError: they are not built, or are damaged.
        """
        built = self._record.of("build_pairs", iteration)
        return PAIRS.read(self._of("build_pairs", iteration, built[0].path if built else None))

    def diagnostics(self, iteration: int) -> Diagnostics:
        """Calibration, collapse and the oracle's weaknesses in an iteration's responses (`artifacts/diagnostics.py`).

        Raises:
            UserError: the iteration is not diagnosed.
        """
        from nemo_sspo.report.facts.gate_view import diagnostics

        return self._of("diagnose", iteration, self._read(lambda: diagnostics(self._record, iteration)))

    def margins(self, iteration: int) -> "GateView":
        """Preference margin over semantic similarity, before and after the gate: S-SPPO's Figure 2.

        Of all response pairs where the iteration is diagnosed, else of its training pairs.

        Raises:
            UserError: its pairs are not built.
        """
        from nemo_sspo.report.facts.gate_view import diagnostics, gate_view

        view = self._read(lambda: gate_view(self._record, iteration, diagnostics(self._record, iteration)))
        return self._of("build_pairs", iteration, view)

    def report(self, output: Path | None = None) -> Path:
        """Draw the run's page, ``report.html`` in its directory unless told otherwise; its path."""
        return draw_run(self._layout, output)

    def _read(self, read: Callable[[], Found]) -> Found:
        """What `read` returns; raises UserError for what the page would only remark on."""
        before = len(self._record.unreadable)
        found = read()
        if len(self._record.unreadable) > before:
            raise UserError(f"{self.directory}: {self._record.unreadable[before]}")
        return found

    def _of(self, stage: str, iteration: int, found: Found | None) -> Found:
        if found is None:
            raise UserError(f"{self.directory}: {stage} of iteration {iteration} is not published; run it first")
        return found
