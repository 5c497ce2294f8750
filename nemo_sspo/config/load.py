"""From Hydra overrides to a validated `Experiment`; whatever is wrong becomes one line that says what to do."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import MarkedYAMLError, YAMLError

from nemo_sspo.config.describe import FieldMeaning, describe_settings, kinds_of_keys
from nemo_sspo.config.earlier import tree_of_today
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.mistakes import closest, shown, validation_message
from nemo_sspo.config.yaml_files import refuse_unreadable
from nemo_sspo.errors import UserError

# In YAML: ${where:${prompts},theirs.jsonl,a value that goes with it,a value for any other}
OmegaConf.register_new_resolver("where", lambda value, wanted, then, other: then if value == wanted else other)

_PACKAGE = Path(__file__).parents[1]
WHOLE_TREE = ("experiment", "method", "model")
"""Groups whose choices set any part of the tree, the first over the second and that over the third."""
_MOST_SHOWN = 200
"""Characters of an override."""


def load_experiment(overrides: Sequence[str], config_dir: Path | None = None) -> Experiment:
    """Compose `overrides` over conf/ and validate.

    Args:
        overrides: in Hydra's grammar: ``experiment=quickstart``, ``gate=power``, ``train.learning_rate=1e-6``.
        config_dir: a directory with further groups, searched after the shipped ones; without it, ``conf/`` of the
            working directory is, for choices of the shipped groups.

    Raises:
        UserError: an override cannot be parsed, names no key or choice, or a value is missing or of the wrong type.
    """
    settings = compose_settings(overrides, config_dir)
    try:
        return Experiment.model_validate(settings)
    except ValidationError as error:
        raise UserError(validation_message(error, settings) + _whole_experiments(error, config_dir)) from None


def change_experiment(experiment: Experiment, overrides: Sequence[str], config_dir: Path | None = None) -> Experiment:
    """An experiment with some settings changed, in the grammar of `load_experiment`; all others stay as they are.

    Raises:
        UserError: as there; and where an override takes a setting away, or chooses a whole experiment, method or model.
    """
    composed, settings = compose_settings(overrides, config_dir), experiment.model_dump(mode="json")
    for override in _parse(overrides):
        key = override.key_or_group
        if override.type == OverrideType.DEL or key in WHOLE_TREE:
            raise UserError(f"{override.input_line}: give the settings that change, as key=value or group=choice")
        *sections, name = key.split(".")
        source, target = composed, settings
        for section in sections:
            source, target = source[section], target.setdefault(section, {})
        target[name] = source[name]
    try:
        return Experiment.model_validate(settings)
    except ValidationError as error:
        raise UserError(validation_message(error, settings)) from None


def describe(overrides: Sequence[str], config_dir: Path | None = None) -> list[FieldMeaning]:
    """Every setting of the composed tree with its value and meaning. Required settings may still be missing."""
    settings = compose_settings(overrides, config_dir)
    try:
        Experiment.model_validate(settings)
    except ValidationError as error:
        if any(problem["type"] != "missing" for problem in error.errors()):
            raise UserError(validation_message(error, settings)) from None
    return list(describe_settings(settings))


@contextmanager
def _own_groups() -> Iterator[None]:
    """Without the groups that other packages have registered in this process: NeMo has one that is called trainer."""
    store = ConfigStore.instance()
    registered = store.repo
    store.repo = {name: node for name, node in registered.items() if name == "hydra" or name.startswith("_")}
    try:
        yield
    finally:
        store.repo = registered


def compose_settings(overrides: Sequence[str], config_dir: Path | None = None) -> dict[str, Any]:
    """The composed and resolved tree, not yet validated."""
    if config_dir is not None:
        if not config_dir.is_dir():
            raise UserError(f"--config-dir {config_dir}: no such directory")
        refuse_unreadable(sorted(config_dir.rglob("*.yaml")))
    else:
        refuse_unreadable(_own_files(None))
    parsed = _parse(overrides)
    arguments = [_argument(override, config_dir) for override in parsed]
    with _own_groups(), initialize_config_dir(str(config_root()), version_base="1.3"):
        try:
            overridden = [*_search_path(config_dir, parsed), *arguments]
            composed = compose("config", overrides=overridden, return_hydra_config=True)
            chosen = dict(composed.hydra.runtime.choices)
            with open_dict(composed):
                del composed["hydra"]
            settings = OmegaConf.to_container(composed, resolve=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # ~=1 is a ValueError
            raise UserError(_one_line(error)) from None
        except RecursionError:
            raise UserError("the configuration refers to itself, or is nested too deeply") from None
        except MarkedYAMLError as error:
            raise UserError(_yaml_mistake(error)) from None
        except YAMLError as error:  # a character that YAML has no place for
            raise UserError(_one_line(error)) from None
    assert isinstance(settings, dict)
    settings = tree_of_today({str(key): value for key, value in settings.items()})
    given = {override.key_or_group for override in parsed}
    if "name" not in given and {"model", "method"} & given:
        settings["name"] = _name_of(chosen)
    return {key: _of_its_kind(key, value, given) for key, value in settings.items()}


def _name_of(chosen: Mapping[str, str | None]) -> str:
    """The name of a run whose model or method was given: both of them, so that it is no other's."""
    return "-".join(name for name in (chosen["model"] or chosen["experiment"], chosen["method"]) if name)


def _of_its_kind(section: str, value: Any, given: set[str]) -> Any:
    """Leave out what an experiment's YAML sets for another kind than the one that was chosen in the end.

    ``experiment=quickstart loss=dpo`` is then a DPO run, though the experiment sets ``loss.eta``. A key that was given
    on the command line always stays, to be refused where it has no meaning.
    """
    if not isinstance(value, dict) or "kind" not in value:
        return value
    kinds = kinds_of_keys()

    def applies(name: str) -> bool:
        key = f"{section}.{name}"
        return key in given or value["kind"] in kinds.get(key, (value["kind"],))

    return {name: inner for name, inner in value.items() if applies(name)}


def config_root() -> Path:
    """The shipped groups: inside the package in a wheel, at the top of a checkout."""
    packaged = _PACKAGE / "conf"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "conf"


def choices(group: str, config_dir: Path | None = None) -> list[str]:
    """Names of the YAML files of a group, the user's among them."""
    return list(choice_files(group, config_dir))


def choice_files(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """The YAML files of a group by name; a shipped one wins over the user's."""
    own = [path for path in _own_files(config_dir) if path.parent.name == group]
    return dict(sorted({path.stem: path for path in (*own, *(config_root() / group).glob("*.yaml"))}.items()))


def _own_root(config_dir: Path | None) -> Path:
    """Where the user's groups may lie."""
    return config_dir or Path.cwd() / "conf"


def _own_files(config_dir: Path | None) -> list[Path]:
    """The user's choices. ``conf/`` of a working directory may serve another program: its other groups do not count."""
    root, shipped = _own_root(config_dir), config_root()
    if root.resolve() == shipped.resolve():
        return []
    files = sorted(filter(Path.is_file, root.glob("*/*.yaml")))
    return [path for path in files if config_dir or (shipped / path.parent.name).is_dir()]


def _search_path(config_dir: Path | None, overrides: Sequence[Override]) -> list[str]:
    """The override that has Hydra look into the user's directory too: a given one, or where it has what is chosen."""
    chosen = {(override.key_or_group, str(override.value())) for override in overrides if not override.is_delete()}
    if config_dir is None and not any((path.parent.name, path.stem) in chosen for path in _own_files(None)):
        return []
    quoted = str(_own_root(config_dir).resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['file://{quoted}']"]


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except (HydraException, ValueError, RecursionError):
            short = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
            raise UserError(f"cannot read the override {short!r}: {_quoting_advice(short)}") from None
    return parsed


def _quoting_advice(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals:
        group = next((path.parent.name for path in sorted(config_root().glob("*/*.yaml")) if path.stem == text), "key")
        return f"write {group}={'value' if group == 'key' else text}"
    if not text.isprintable():
        return "it holds characters that cannot be printed"
    if value.startswith("~"):
        return f'no shell puts your home directory in there: write {key}="$HOME{value[1:]}"'
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    quoted = shlex.quote(f'{key}="{escaped}"')
    return f"a value with special characters needs quotes of its own: {quoted}"


def _argument(override: Override, config_dir: Path | None) -> str:
    """The override as Hydra takes it: a checked group choice, or a value that is set whether or not a YAML has it."""
    text = override.input_line or ""
    if override.is_sweep_override():
        raise UserError(f"{shown(text)}: several values; a run takes one (a list is written key=[a,b])")
    key = override.key_or_group
    known = choices(key, config_dir) if key.isidentifier() else []
    if known and override.type != OverrideType.DEL:
        _check_choice(key, override.value(), known)
        # Groups that only the user's directory has are in no defaults list: they are added, not chosen.
        return text.lstrip("+") if (config_root() / key).is_dir() else f"+{text.lstrip('+')}"
    return f"++{text}" if override.type == OverrideType.CHANGE else text


def _check_choice(group: str, value: object, known: list[str]) -> None:
    if value is None or value in known:
        return
    raise UserError(
        f"{group}={shown(value)}: no such choice{closest(str(value), known)}; one of {', '.join(known)}; your own are "
        f"YAML files in {group}/ below conf/ of this directory or below a --config-dir"
    )


def _whole_experiments(error: ValidationError, config_dir: Path | None) -> str:
    """Where a run has not even a name: what it could start from."""
    problems = error.errors()
    if any(problem["type"] != "missing" for problem in problems) or all(p["loc"] != ("name",) for p in problems):
        return ""
    *others, last = choices("experiment", config_dir)
    return f", or start from model=... method=..., or from experiment={', '.join(others)} or {last}"


def _yaml_mistake(error: MarkedYAMLError) -> str:
    mark, reason = error.problem_mark, error.problem or "it cannot be read"
    where = f"{mark.name} line {mark.line + 1}" if mark else "a YAML file of the configuration"
    return f"{where}: not YAML ({reason}); names and their settings must be indented alike"


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__
