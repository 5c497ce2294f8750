"""The hub's cache: offline it has what is asked for, online it can be written to."""

import os
from collections.abc import Iterator, Mapping

from nemo_sspo.artifacts.sources.models import hub_cache, offline_variable
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.doctor.check import Check, judged
from nemo_sspo.doctor.host.folders import existing
from nemo_sspo.launch.checks.elsewhere import check_hub, hub_ids

_GIB = 2**30


def hub_checks(experiment: Experiment) -> Iterator[Check]:
    """Models by hub id, offline mode, the cache and what a download that was cut has left in it."""
    cluster = experiment.cluster
    wanted = list(dict.fromkeys(hub_id for _, hub_id, _ in hub_ids(experiment)))
    for problem in check_hub(experiment):
        yield Check(problem.partition("=")[0], "failed", "offline, and not in the cache", note=problem)
    for name in ("train", "rollout"):
        yield from _cache(name, {**os.environ, **getattr(cluster, name).variables}, wanted)


def _cache(name: str, variables: Mapping[str, str], wanted: list[str]) -> Iterator[Check]:
    title, cache = f"hub cache of {name}", hub_cache(variables)
    offline = offline_variable(variables)
    mode = f"offline ({offline})" if offline else "online"
    asked = ", ".join(wanted) or "nothing of these settings lies there"
    writable = os.access(existing(cache), os.W_OK | os.X_OK)
    advice = "it cannot be written to: set HF_HOME to a folder of yours that every node sees"
    yield judged(
        title, bool(offline) or writable, f"{mode}; {asked}", advice=advice, otherwise="failed" if wanted else "warning"
    )
    cut = list(cache.glob("models--*/blobs/*.incomplete"))
    if cut:
        size = sum(file.stat().st_size for file in cut if file.exists()) / _GIB
        advice = (
            f"downloads go on from them; if none is under way and none shall: rm {cache}/models--*/blobs/*.incomplete"
        )
        yield Check(f"downloads of {name}", "warning", f"{len(cut)} cut off, {size:.1f} GiB", note=advice)
