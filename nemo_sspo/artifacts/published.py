"""What a run has published so far, from its manifests alone: no other file is opened and none is verified."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from nemo_sspo.artifacts.layout import RunLayout, step_id
from nemo_sspo.artifacts.manifest import MANIFEST_NAME, Manifest


@dataclass(frozen=True)
class PublishedStep:
    """One artifact of a run."""

    step_id: str
    path: Path
    manifest: Manifest

    @property
    def seconds(self) -> float:
        """Duration of the work, without the start of its process."""
        return self.manifest.timings.get("seconds", 0.0)

    @property
    def started(self) -> datetime:
        """When the work began."""
        return datetime.fromisoformat(self.manifest.created_at)

    @property
    def ended(self) -> datetime:
        """When the artifact was complete."""
        return self.started + timedelta(seconds=self.seconds)


def published_steps(layout: RunLayout) -> list[PublishedStep]:
    """Every published artifact of a run, in the order in which their work began."""
    return sorted(_steps(layout), key=lambda step: (step.manifest.created_at, step.step_id))


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of an artifact's directory; None when there is none that this version can read."""
    try:
        return Manifest.model_validate_json((path / MANIFEST_NAME).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _steps(layout: RunLayout) -> Iterator[PublishedStep]:
    directories = [layout.artifact("prepare_prompts")]
    for stage in sorted(layout.root.glob("iter_[0-9]*/[a-z]*")):
        directories += [stage, *sorted(stage.glob("shard_[0-9]*"))]
    for path in directories:
        if (manifest := read_manifest(path)) is not None:
            shard = manifest.shard if path.name.startswith("shard_") else None
            yield PublishedStep(step_id(manifest.stage, manifest.iteration, shard), path, manifest)
