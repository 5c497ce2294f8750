"""`nemo-sspo config` tells every setting, its value and its meaning."""

from nemo_sspo.config.describe import REQUIRED, kinds_of_keys
from nemo_sspo.config.load import describe, load_experiment
from nemo_sspo.config.roles import roles


def leaves(value, prefix=""):
    if not isinstance(value, dict):
        return {prefix}
    return {path for key, inner in value.items() for path in leaves(inner, f"{prefix}.{key}" if prefix else key)}


def test_every_leaf_of_the_validated_tree_is_described_with_its_value():
    overrides = ["experiment=quickstart", "gate=threshold", "train.packing=true"]
    rows = {row.path: row for row in describe(overrides)}
    dumped = load_experiment(overrides).model_dump()
    for path, row in rows.items():
        value = dumped
        for part in path.split("."):
            value = value[part]
        if not isinstance(value, dict):
            assert value == row.value or list(value) == list(row.value), path
    flat = leaves(dumped)
    open_ended = {path for path in rows if path.endswith((".variables", ".extra", ".template_arguments"))}
    assert {path for path in flat if not path.startswith(tuple(open_ended))} == set(rows) - open_ended


def test_every_setting_has_a_meaning():
    chosen = [f"gate={gate}" for gate in ("linear", "power", "custom")]
    chosen += [f"oracle={oracle}" for oracle in ("pairrm", "reward_model", "llm_judge", "policy_judge", "function")]
    for choice in chosen:
        assert [row.path for row in describe([choice]) if not row.meaning] == []


def test_defaults_and_changes_are_told_apart():
    rows = {row.path: row for row in describe(["experiment=quickstart"])}
    assert rows["loss.eta"].is_default is False
    assert rows["train.clip_grad"].is_default is True
    assert rows["gate.kind"].meaning.startswith("One of none, linear, power")


def test_every_role_is_told_beside_its_setting():
    overrides = ["experiment=quickstart", "parallel=tp2", "gate=custom", "gate.function=tests.config:gate"]
    experiment = load_experiment(overrides)
    assert {row.path: row.role for row in describe(overrides) if row.role} == roles(experiment)


def test_what_is_missing_shows_as_required():
    rows = {row.path: row for row in describe(["oracle=reward_model"])}
    assert rows["policy"].value == rows["oracle.path"].value == REQUIRED


def test_keys_know_their_kinds():
    kinds = kinds_of_keys()
    assert kinds["gate.exponent"] == ("power",)
    assert kinds["train.learning_rate"] == ("",)
    assert {"dpo", "ipo", "kto_pair"} <= set(kinds["loss.beta"])
    assert not {"sppo", "sppo_single", "sppo_hard"} & set(kinds["loss.beta"])
