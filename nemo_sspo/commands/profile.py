"""``nemo-sspo profile``: measure this machine, and write a file of speeds for ``plan --estimate``."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from nemo_sspo.commands.environment import ask, refuse_elsewhere
from nemo_sspo.commands.stored_run import given_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.estimate.parameters import active_parameters
from nemo_sspo.estimate.run import longest_rank
from nemo_sspo.estimate.speeds import PUBLISHED, Speeds, read_network, read_speeds
from nemo_sspo.launch.run_directory import write_atomically

_PROGRAMS = "nemo_sspo.estimate.profiling"
_MEASURED = "measured by nemo-sspo profile"


def register(commands: Any) -> None:
    """Add the command."""
    text = "measure this machine, for plan --estimate"
    sub = commands.add_parser("profile", help=text, description=f"{text}.")
    sub.add_argument("overrides", nargs="*", help="settings: the environments, and the policy and engine that sample")
    sub.add_argument("--config-dir", type=Path, help="directory with YAML files of your own, laid out as conf/ is")
    sub.add_argument("--output", type=Path, default=Path("speeds.yaml"), help="file to write (%(default)s)")
    sub.add_argument("--network", type=Path, help=f"what `torchrun … -m {_PROGRAMS}.network` printed on several nodes")
    sub.set_defaults(command=profile)


def profile(options: argparse.Namespace) -> int:
    """What cannot be measured here keeps the published figure, and says so."""
    experiment = given_experiment(options.overrides, options.config_dir)
    folder = options.output.resolve().parent
    if not folder.is_dir():
        raise UserError(f"--output {options.output}: {folder} is no folder")
    refuse_elsewhere("train", experiment.cluster.train, "profile")
    refuse_elsewhere("rollout", experiment.cluster.rollout, "profile")
    given = read_network(options.network) if options.network else None
    print("measures products, attention, memory and storage (about a minute) …", flush=True)
    rates = ask("train", experiment.cluster.train, f"{_PROGRAMS}.training", [str(folder)], "profile")
    if given is None:
        print("measures what GPUs send to each other …", flush=True)
        given = ask("train", experiment.cluster.train, f"{_PROGRAMS}.network", [], "profile")
    speeds, sources = _with_rates(rates | given)
    print("measures generation: the engine starts, and samples (minutes) …", flush=True)
    engine = experiment.engine
    sampled = ask(
        "rollout",
        experiment.cluster.rollout,
        f"{_PROGRAMS}.generation",
        [experiment.policy, engine.model_dump_json()],
        "profile",
    )
    kind = engine.quantization or ("fp32" if engine.dtype == "float32" else "bf16")
    rate = sampled["tokens_per_second"] * active_parameters(longest_rank(experiment)) / engine.tensor_parallel
    published = read_speeds().generation
    speeds["generation"] = {name: rate / published.of(kind) * published.of(name) for name in ("bf16", "fp8", "fp32")}
    speeds["starting"]["engine"] = sampled["start"]
    sources["generation"] = f"{kind} {_MEASURED} with policy={experiment.policy}; the others by published ratios"
    sources["starting"] = f"engine {_MEASURED}, the policy's reading among it; the rest assumed"
    _write(options.output, Speeds.model_validate(speeds | {"published": False}), sources)
    print(f"{options.output}: give it to `nemo-sspo plan --estimate --speeds {options.output}`")
    return 0


def _with_rates(rates: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The published figures with those that the training environment found, and where each of all is from."""
    published = read_speeds()
    speeds = published.model_dump()
    sources = {name: f"published: {text}" for name, text in published.sources.items()}
    speeds |= {name: rates[name] for name in rates.keys() & speeds.keys()}
    sources |= {name: _MEASURED for name in rates.keys() & sources.keys()}
    by_ratio = rates["products_bf16"] * published.products.fp8 / published.products.bf16
    fp8 = rates.get("products_fp8", by_ratio)
    speeds["products"] = {"bf16": rates["products_bf16"], "fp8": fp8, "fp32": rates["products_fp32"]}
    sources["products"] = _MEASURED + ("" if "products_fp8" in rates else "; fp8 by the published ratio to bf16")
    return speeds, sources


def _write(path: Path, speeds: Speeds, sources: dict[str, str]) -> None:
    text = yaml.safe_dump(speeds.model_dump() | {"sources": sources}, sort_keys=False)
    write_atomically(path, f"# Made by nemo-sspo profile; {PUBLISHED.name} is the published one.\n{text}")
