"""What a run has published so far, from its manifests alone: no other file is opened and none is verified."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from nemo_sspo.artifacts.facts.base import SomeFacts
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.manifest import Manifest, read_manifest_file
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.errors import UserError


class PublishedStep(Artifact):
    """One artifact of a run."""

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
        return read_manifest_file(path)
    except (FileNotFoundError, NotADirectoryError, UserError):
        return None


def facts_at(path: Path, kind: type[SomeFacts]) -> SomeFacts | None:
    """What the stage of an artifact's directory reported; None when there is no manifest that this version can read.

    Raises:
        UserError: a fact is of another type than `kind` says.
    """
    manifest = read_manifest(path)
    return None if manifest is None else Artifact(path, manifest).facts(kind)


def _steps(layout: RunLayout) -> Iterator[PublishedStep]:
    directories = [layout.artifact("prepare_prompts")]
    for stage in sorted(layout.root.glob("iter_[0-9]*/[a-z]*")):
        directories += [stage, *sorted(stage.glob("shard_[0-9]*"))]
    for path in directories:
        if (manifest := read_manifest(path)) is not None:
            yield PublishedStep(path, manifest)
