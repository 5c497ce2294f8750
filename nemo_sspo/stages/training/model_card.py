"""The model card of an exported policy: what it was made of and how, from settings and manifests alone.

It is a part of the export's identity, so that equal runs have equal cards: no date, no path of the run. Values of the
user's stand in YAML strings or in Markdown code spans, where they cannot act as markup.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nemo_sspo import __version__
from nemo_sspo.artifacts.changes import CONTENT
from nemo_sspo.artifacts.facts.pairs import PairFacts
from nemo_sspo.artifacts.facts.sampling import FurtherFacts, PromptFacts
from nemo_sspo.artifacts.facts.training import TrainFacts
from nemo_sspo.artifacts.knobs import KnobChange
from nemo_sspo.artifacts.manifest import Manifest, digest_of
from nemo_sspo.artifacts.selection import Candidate, SelectionResult
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.artifacts.tables import portion_prompts
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Train
from nemo_sspo.megatron.optimizer.learning_rate import highest_factor
from nemo_sspo.stages.runner.settings import recipe_settings

MODEL_CARD = "README.md"
_TEMPLATES = Path(__file__).parent / "templates"

Lines = list[tuple[str, Any]]


def model_card(
    experiment: Experiment,
    iteration: int,
    *,
    prompts: Artifact,
    pairs: Artifact,
    train: Artifact,
    further: Sequence[Artifact] = (),
    selection: SelectionResult | None = None,
    changed: Sequence[KnobChange] = (),
) -> str:
    """The card as Markdown with YAML in front, as the Hugging Face hub reads it.

    Args:
        prompts: of prepare_prompts.
        pairs: of this iteration's build_pairs.
        train: of this iteration's training.
        further: prompts of the iterations that the run did not begin with, up to this one.
        selection: how this policy was chosen among the iteration's checkpoints, where there was a choice.
        changed: knobs that had another value in earlier steps that the policy was made by.
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
        recipe=_recipe(settings),
        changed=changed,
        data=_data(experiment, iteration, [prompts, *further], pairs, train),
        training=_training(experiment.train, train.facts(TrainFacts)),
        selection=[] if selection is None else _selection(selection),
        digest=digest_of(settings),
        settings=_yaml(_tree({key: _literal(value) for key, value in settings.items()})),
        software=_software(train.manifest, pairs.manifest),
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


def _recipe(settings: Mapping[str, Any]) -> Lines:
    """Every setting that the policy depends on, a line for each section."""
    return [(name, _on_one_line(value)) for name, value in _tree(settings).items()]


def _on_one_line(value: Any) -> str:
    """YAML's flow style, without the braces of a section; its kind comes first."""
    if not isinstance(value, dict):
        return str(value)
    return _yaml(dict(sorted(value.items(), key=lambda item: item[0] != "kind")), flow=True).strip()[1:-1]


def _data(
    experiment: Experiment, iteration: int, prompts: Sequence[Artifact], pairs: Artifact, train: Artifact
) -> Lines:
    split, built = prompts[0].facts(PromptFacts), pairs.facts(PairFacts)
    later = [each.facts(FurtherFacts).prompts or 0 for each in prompts[1:]]
    lines: Lines = [
        ("prompts", ", ".join([*experiment.prompt_sources, *filter(None, [experiment.further.prompts])])),
        ("prompts of all iterations", sum(later, split.prompts or 0) if later else split.prompts),
        ("held-out prompts", split.held_out),
    ]
    # Of iterations 1..t alone: the others' portions have not been seen by this policy.
    names = {number: portion_prompts(number).file for number in range(1, iteration + 1)}
    files = {name: record for each in prompts for name, record in each.manifest.files.items()}
    lines += [(f"SHA-256 of {name}, iteration {i}", files[name].sha256) for i, name in names.items()]
    lines += [(f"pairs of iteration {iteration}", built.pairs)]
    lines += [(f"digest of the pairs of iteration {iteration}", pairs.manifest.digest)]
    made_with = {f"{CONTENT}{key}": value for key, value in built.made_with.items()}
    of_prompts = {key: value for each in prompts for key, value in each.manifest.config.items()}
    recorded = {**of_prompts, **pairs.manifest.config, **made_with, **train.manifest.config}
    return lines + sorted((key, value) for key, value in recorded.items() if key.startswith(CONTENT))


def _training(settings: Train, train: TrainFacts) -> Lines:
    """The peak learning rate, the step-1 identity and the course of the loss, as far as they were measured."""
    known = {
        "optimizer steps": train.steps,
        "loss of the first step": train.loss_first,
        "loss of the last step": train.loss_last,
        "preference loss at step 1": train.step1_loss,
        "the same in closed form, every log-ratio 0": train.step1_closed_form,
    }
    if train.steps is not None:
        share = highest_factor(settings, train.steps // settings.train_epochs)
        known["highest learning rate"] = share * settings.learning_rate
    return [
        (name, f"{value:.6g}" if isinstance(value, float) else value)
        for name, value in known.items()
        if value is not None
    ]


def _selection(selection: SelectionResult) -> Lines:
    """Every candidate's figures, and the reason for the choice."""
    lines: Lines = [("prompts to choose by, held out from training and evaluation", selection.prompts)]
    lines += [(f"candidate after step {each.step}", _candidate(each)) for each in selection.candidates]
    lines += [("chosen", f"step {selection.candidates[selection.chosen].step}"), ("reason", selection.reason)]
    return [*lines, ("the run ended here", selection.stop)] if selection.stop else lines


def _candidate(candidate: Candidate) -> str:
    return f"win rate {candidate.win_rate}, at equal length {candidate.length_controlled}"


def _software(train: Manifest, pairs: Manifest) -> Lines:
    """Versions of both environments; the one that samples and judges is the one that builds the pairs."""
    sides = {"training": train.software, "rollout": pairs.software}
    versions = [(f"{name} ({side})", version) for side, found in sides.items() for name, version in found.items()]
    return [("nemo-sspo", __version__), *versions]


def _tree(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of an experiment from its settings by dotted key; the inverse of ``settings.recipe_settings``."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, name = key.split(".")
        below = tree
        for section in sections:
            below = below.setdefault(section, {})
        below[name] = value
    return tree


def _literal(value: Any) -> Any:
    """A string that OmegaConf takes as it is."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


class _OneLineStrings(yaml.SafeDumper):
    """Writes every string on one line, so that none looks like the end of the front matter."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_OneLineStrings.add_representer(str, _string)


def _yaml(tree: Mapping[str, Any], *, flow: bool = False) -> str:
    options = {"sort_keys": False, "allow_unicode": True, "width": sys.maxsize, "default_flow_style": flow}
    return str(yaml.dump(dict(tree), Dumper=_OneLineStrings, **options))
