"""Whether a run's published artifacts match the current settings and inputs. Every runner uses this one rule.

An artifact is *current* when it was made with the settings that its step has today, from inputs that are published,
current and of the same content. Otherwise it is *stale*: no step reads it, and its own step does not count as done.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from nemo_sspo.artifacts.changes import changes, setting_changes
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.manifest import Manifest, read_manifest_file
from nemo_sspo.artifacts.store import Artifact, open_artifact
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.stages.runner.inputs import Inputs
from nemo_sspo.stages.runner.registry import STAGES, stage_inputs
from nemo_sspo.stages.runner.settings import knob_names, stage_settings

Standing = Literal["missing", "current", "stale"]


class Freshness:
    """Checks the artifacts of one run. Reads each manifest once, and no other file of an artifact."""

    def __init__(self, experiment: Experiment, layout: RunLayout) -> None:
        self._experiment = experiment
        self._layout = layout
        self._settings = cache(lambda stage: stage_settings(experiment, stage))
        self._knobs = knob_names(experiment)
        self._found: dict[Path, tuple[Manifest | None, tuple[str, ...]]] = {}

    def standing(self, path: Path) -> Standing:
        """The state of an artifact of the run."""
        manifest, reasons = self._look(path)
        return "missing" if manifest is None else "stale" if reasons else "current"

    def reasons(self, path: Path) -> tuple[str, ...]:
        """Why an artifact is not current, a line each; empty where it is, or where none is published."""
        return self._look(path)[1]

    def changed_settings(self, path: Path) -> list[str]:
        """Those of the reasons that are settings of its own step."""
        manifest, _ = self._look(path)
        return [] if manifest is None else self._setting_changes(manifest)

    def _setting_changes(self, manifest: Manifest) -> list[str]:
        return setting_changes(manifest.config, self._settings(manifest.stage), self._knobs)

    def _look(self, path: Path) -> tuple[Manifest | None, tuple[str, ...]]:
        if path not in self._found:
            self._found[path] = self._judged(path)
        return self._found[path]

    def _judged(self, path: Path) -> tuple[Manifest | None, tuple[str, ...]]:
        try:
            manifest = read_manifest_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None, ()
        if manifest.stage not in STAGES:
            return manifest, (f"no stage makes a {manifest.stage!r}",)
        paths = stage_inputs(manifest.stage, self._experiment, self._layout, manifest.iteration, manifest.shard)
        broken = tuple(
            f"input {name}: {path_name(self._layout, source)} is {self.standing(source)}"
            for name, group in paths.items()
            for source in group
            if self.standing(source) != "current"
        )
        if broken:
            return manifest, (*self._setting_changes(manifest), *broken)
        digests = {name: [self._digest(source) for source in group] for name, group in paths.items()}
        return manifest, tuple(changes(manifest, self._settings(manifest.stage), digests, self._knobs))

    def _digest(self, path: Path) -> str:
        manifest, _ = self._look(path)
        assert manifest is not None
        return manifest.digest


def path_name(layout: RunLayout, path: Path) -> str:
    """An artifact's directory as its step is named: ``iter_1.train``, ``iter_1.rollout.00003``."""
    if path == layout.artifact("prepare_prompts"):
        return "prepare_prompts"
    return ".".join(path.relative_to(layout.root).parts).replace("shard_", "")


def refuse_stale_inputs(experiment: Experiment, layout: RunLayout, paths: Inputs) -> None:
    """Raise a UserError that names the first stale input of a step."""
    freshness = Freshness(experiment, layout)
    for group in paths.values():
        for path in group:
            if reasons := freshness.reasons(path):
                raise UserError(
                    f"{path}: out of date ({'; '.join(reasons)}): `nemo-sspo redo {layout.root}` makes it anew, and "
                    "what was made from it"
                )


def refuse_changed_since(
    experiment: Experiment, layout: RunLayout, stage: str, began_with: dict[str, Any], inputs: dict[str, list[Artifact]]
) -> None:
    """Raise a UserError when a step's settings or inputs have changed since it began: it is not published.

    Args:
        experiment: as it is stored now.
        began_with: the settings that the step began with.
        inputs: what it opened.
    """
    changed = setting_changes(began_with, stage_settings(experiment, stage))
    changed += [f"{artifact.path} is another now" for artifact in _opened(inputs) if _is_another(artifact)]
    if changed:
        raise UserError(
            f"{stage}: while it ran, its settings or inputs changed ({'; '.join(changed)}): what it made is not "
            f"published; run {layout.root} again"
        )


def _opened(inputs: dict[str, list[Artifact]]) -> Sequence[Artifact]:
    return [artifact for group in inputs.values() for artifact in group]


def _is_another(artifact: Artifact) -> bool:
    try:
        return open_artifact(artifact.path).manifest.digest != artifact.manifest.digest
    except UserError:
        return True
