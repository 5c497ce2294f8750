"""The model card of an exported policy: what it was made of and how, from settings and manifests alone.

It is a part of the export's identity, so that equal runs have equal cards: no date, no path of the run. Values of the
user's stand in YAML strings or in Markdown code spans, where they cannot mean anything.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nemo_sspo import __version__
from nemo_sspo.artifacts.layout import PORTION
from nemo_sspo.artifacts.manifest import Manifest, digest_of
from nemo_sspo.artifacts.selection import Candidate, Selection
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.stages.registry import CONTENT, recipe_settings

MODEL_CARD = "README.md"
_TEMPLATES = Path(__file__).parent / "templates"

Facts = list[tuple[str, Any]]


def model_card(
    experiment: Experiment,
    iteration: int,
    *,
    prompts: Manifest,
    pairs: Manifest,
    train: Manifest,
    selection: Selection | None = None,
) -> str:
    """The card as Markdown with YAML in front, as the Hugging Face hub reads it.

    Args:
        prompts: manifest of prepare_prompts.
        pairs: manifest of this iteration's build_pairs.
        train: manifest of this iteration's training.
        selection: how this policy was chosen among the iteration's checkpoints, where there was a choice.
    """
    settings = recipe_settings(experiment)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, where `code` is what escapes
    )
    environment.filters["code"] = code
    return environment.get_template("model_card.md.j2").render(
        front_matter=_yaml(_front_matter(experiment)),
        base=experiment.policy,
        iteration=iteration,
        iterations=experiment.iterations,
        recipe=_recipe(experiment),
        data=_data(experiment, iteration, prompts, pairs),
        training=_training(train),
        selection=[] if selection is None else _selection(selection),
        digest=digest_of(settings),
        settings=_yaml(_repeatable(settings)),
        software=_software(train, pairs),
    )


def code(value: Any) -> str:
    """A Markdown code span that shows `value` and nothing but it, on one line.

    Control characters are shown as escapes. The fence is longer than any run of backticks inside (CommonMark 6.1).
    """
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    padding = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _front_matter(experiment: Experiment) -> dict[str, Any]:
    tags = ["nemo-sspo", "self-play", "preference-optimization", experiment.loss.kind]
    if experiment.gate.kind != "none" or experiment.repulsion.weight:
        tags.append("s-sppo")
    return {
        "base_model": experiment.policy,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }


def _recipe(experiment: Experiment) -> Facts:
    loss, gate, repulsion = experiment.loss, experiment.gate, experiment.repulsion
    train, rollout, oracle = experiment.train, experiment.rollout, experiment.oracle
    judge = [value for name in ("path", "model", "function") if (value := getattr(oracle, name, None))]
    repelled = f"{repulsion.form}, pooled {repulsion.pooling}" if repulsion.weight else "none"
    return [
        ("loss", loss.kind),
        *((_GREEK.get(name, f"loss {name}"), value) for name, value in loss.model_dump().items() if name != "kind"),
        ("gate", gate.kind),
        *((f"gate {name}", value) for name, value in gate.model_dump().items() if name != "kind"),
        ("repulsion", repelled),
        *([("λ", f"{repulsion.weight:g} ({repulsion.schedule})")] if repulsion.weight else []),
        ("oracle", " ".join([oracle.kind, *judge])),
        ("encoder", experiment.encoder.path),
        ("responses per prompt (K)", rollout.samples_per_prompt),
        *([("responses of iteration 1", rollout.source)] if rollout.source else []),
        ("sampling", f"temperature {rollout.temperature:g}, top-p {rollout.top_p:g}"),
        ("longest response, tokens", rollout.max_response_tokens),
        ("iterations", experiment.iterations),
        ("learning rate", f"{train.learning_rate:g} ({train.lr_schedule}, warm-up {train.warmup_fraction:g})"),
        ("optimizer", train.optimizer),
        ("pairs per step", train.global_batch_size),
        ("epochs per iteration", train.train_epochs),
        ("weights trained", f"LoRA of rank {train.lora_rank}, merged" if train.peft else "all"),
        ("reference policy", train.reference),
        ("precision", experiment.precision.kind),
        ("seed", experiment.seed),
    ]


_GREEK = {"eta": "η", "beta": "β"}


def _data(experiment: Experiment, iteration: int, prompts: Manifest, pairs: Manifest) -> Facts:
    facts: Facts = [
        ("prompts", experiment.prompts),
        ("prompts of all iterations", prompts.counts["prompts"]),
        ("held-out prompts", prompts.counts["held_out"]),
    ]
    # Of iterations 1..t alone: the others' portions have not been seen by this policy.
    names = {number: PORTION.format(iteration=number) for number in range(1, iteration + 1)}
    facts += [(f"SHA-256 of {name}, iteration {i}", prompts.files[name].sha256) for i, name in names.items()]
    facts += [(f"pairs of iteration {iteration}", pairs.counts["pairs"])]
    facts += [(f"digest of the pairs of iteration {iteration}", pairs.digest)]
    return facts + sorted((key, value) for key, value in prompts.config.items() if key.startswith(CONTENT))


def _training(train: Manifest) -> Facts:
    """The step-1 identity and the loss's way, as far as they were measured."""
    names = {
        "optimizer steps": "steps",
        "loss of the first step": "loss_first",
        "loss of the last step": "loss_last",
        "preference loss at step 1": "step1_loss",
        "the same in closed form, every log-ratio 0": "step1_closed_form",
    }
    known = {name: train.counts.get(key) for name, key in names.items()}
    return [
        (name, f"{value:.6g}" if isinstance(value, float) else value)
        for name, value in known.items()
        if value is not None
    ]


def _selection(selection: Selection) -> Facts:
    """Every candidate's figures, and why this one was taken."""
    facts: Facts = [("prompts to choose by, held out from training and evaluation", selection.prompts)]
    facts += [(f"candidate after step {each.step}", _candidate(each)) for each in selection.candidates]
    facts += [("chosen", f"step {selection.candidates[selection.chosen].step}"), ("reason", selection.reason)]
    return [*facts, ("the run ended here", selection.stop)] if selection.stop else facts


def _candidate(candidate: Candidate) -> str:
    return f"win rate {candidate.win_rate}, at equal length {candidate.length_controlled}"


def _software(train: Manifest, pairs: Manifest) -> Facts:
    """Versions of both environments; the one that samples and judges is the one that builds the pairs."""
    sides = {"training": train.software, "rollout": pairs.software}
    versions = [(f"{name} ({side})", version) for side, found in sides.items() for name, version in found.items()]
    return [("nemo-sspo", __version__), *versions]


def _repeatable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of an experiment from its settings by dotted key; the inverse of ``registry.recipe_settings``."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, name = key.split(".")
        below = tree
        for section in sections:
            below = below.setdefault(section, {})
        below[name] = _literal(value)
    return tree


def _literal(value: Any) -> Any:
    """A string that OmegaConf takes as it is."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


class _OneLineStrings(yaml.SafeDumper):
    """Writes every string on one line, so that none looks like the end of the front matter."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_OneLineStrings.add_representer(str, _string)


def _yaml(tree: Mapping[str, Any]) -> str:
    options = {"sort_keys": False, "allow_unicode": True, "width": sys.maxsize}
    return str(yaml.dump(dict(tree), Dumper=_OneLineStrings, **options))
