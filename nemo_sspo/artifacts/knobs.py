"""Which knobs (settings that fit a run to its machine) were changed in a run, and from where on."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nemo_sspo.artifacts.changes import shown
from nemo_sspo.artifacts.manifest import Manifest


@dataclass(frozen=True)
class KnobChange:
    """A setting that had another value in earlier steps of the same stages."""

    iteration: int
    """The first step that ran with it."""
    setting: str
    before: Any
    after: Any
    rounding: bool
    """Whether it changes results by rounding."""
    stages: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        effect = " (changes rounding)" if self.rounding else ""
        where = f"iteration {self.iteration} ({', '.join(self.stages)})"
        return f"{self.setting}: {shown(self.before)} -> {shown(self.after)} from {where} on{effect}"


def knob_changes(manifests: Iterable[Manifest]) -> list[KnobChange]:
    """Every change of a knob from one step of a stage to the next, in the order of the iterations."""
    in_time = sorted(manifests, key=lambda manifest: manifest.created_at)
    # Manifests of earlier releases have knobs among the other settings.
    knobs = {(manifest.stage, setting) for manifest in in_time for setting in manifest.knobs}
    rounding = {setting for manifest in in_time for setting in manifest.rounding}
    last: dict[tuple[str, str], Any] = {}
    found: dict[tuple[int, str, str, str], KnobChange] = {}
    for manifest in in_time:
        for setting, value in (manifest.config | manifest.knobs).items():
            if (manifest.stage, setting) not in knobs:
                continue
            before = last.get((manifest.stage, setting), value)
            last[manifest.stage, setting] = value
            if before != value:
                key = (manifest.iteration, setting, shown(before), shown(value))
                change = KnobChange(manifest.iteration, setting, before, value, setting in rounding)
                stages = found.setdefault(key, change).stages
                stages += [] if manifest.stage in stages else [manifest.stage]
    return sorted(found.values(), key=lambda change: (change.iteration, change.setting))
