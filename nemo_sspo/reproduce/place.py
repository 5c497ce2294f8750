"""Where the results of a table's policies lie, and what is not there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.benchmarks import of_run
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.benchmark import Examinee
from nemo_sspo.reproduce.declarations import Policy


class Missing(Exception):
    """A number that is not there, and why."""


@dataclass(frozen=True)
class Place:
    """A table's runs and models, and what its judges read and write."""

    table: str
    """``PAPER.TABLE``; answers to questions of one's own are the table's."""
    runs: Mapping[str, Experiment]
    models: Mapping[str, Examinee]
    questions: Mapping[str, Path]
    """Questions files by benchmark."""
    tools: Mapping[str, Path]
    """Checkouts of judges by benchmark."""

    def examinee(self, policy: Policy) -> Examinee:
        """The policy before a benchmark."""
        if policy.iteration is None:
            return self.models[policy.name]
        run = self.runs[policy.name]
        name = f"{run.name}-iter{policy.iteration}"
        return Examinee(run.run_dir, policy.iteration, name, of_run(run), run.cluster, True)

    def answers(self, policy: Policy, benchmark: str) -> Path:
        """The folder of a policy's answers."""
        asked = self.examinee(policy)
        name = f"own.{self.table}" if benchmark == "own" else benchmark
        return RunLayout(asked.root).benchmark(name, asked.iteration)

    def tool(self, benchmark: str) -> Path:
        """Raises Missing where none is given."""
        if benchmark not in self.tools:
            raise Missing(f"its judgements lie in the judge's checkout: --tool {benchmark}=DIRECTORY")
        return self.tools[benchmark]

    @property
    def matrix(self) -> Path:
        """Win rates between the table's policies."""
        (root,) = {run.runs_dir for run in self.runs.values()} or {"runs"}
        return Path(root) / "models" / f"win_rates.{self.table}"
