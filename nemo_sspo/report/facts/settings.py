"""The configuration of a run, and the content digests and versions of its artifacts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemo_sspo.config.describe import describe_settings
from nemo_sspo.report.facts.record import RunRecord


@dataclass(frozen=True)
class Setting:
    """One resolved setting."""

    key: str
    value: str
    is_default: bool
    meaning: str


@dataclass(frozen=True)
class Digest:
    """Identity of one artifact."""

    step_id: str
    digest: str
    rows: int
    megabytes: float
    code_version: str
    created_at: str


def settings(run: RunRecord) -> list[Setting]:
    """Every setting of the run, in the order of the configuration."""
    return [Setting(row.path, shown(row.value), row.is_default, row.meaning) for row in describe_settings(run.settings)]


def software(run: RunRecord) -> list[tuple[str, str, list[str]]]:
    """(package, version, stages that ran with it); a package with two versions has two rows."""
    stages: dict[tuple[str, str], list[str]] = {}
    for step in run.steps:
        for named in step.manifest.software.items():
            stages.setdefault(named, []).append(step.manifest.stage)
    return [(*named, list(dict.fromkeys(found))) for named, found in sorted(stages.items())]


def digests(run: RunRecord) -> list[Digest]:
    """Every artifact's identity, in the order in which they were made."""
    return [
        Digest(
            step_id=step.step_id,
            digest=step.manifest.digest,
            rows=step.manifest.rows,
            megabytes=sum(record.size for record in step.manifest.files.values()) / 1e6,
            code_version=step.manifest.code_version,
            created_at=step.manifest.created_at,
        )
        for step in run.steps
    ]


def differing(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs: (key, one value per run). Names and places of runs are left out."""
    flat = [{row.path: row.value for row in describe_settings(run.settings)} for run in runs]
    keys = [key for key in dict.fromkeys(key for each in flat for key in each) if key not in ("name", "runs_dir")]
    rows = [(key, [shown(each[key]) if key in each else "unset" for each in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def shown(value: Any) -> str:
    """A setting's value as text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)
