"""Settings of earlier releases load as what they meant, and published steps stay what they were."""

import json

import pytest

from nemo_sspo.artifacts.changes import setting_changes
from nemo_sspo.artifacts.manifest import Manifest
from nemo_sspo.config.earlier import keys_of_today
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.stages.runner.settings import stage_settings

QUICK = "experiment=quickstart"
OF_EVERY_FORM = {"pooling": "mean", "weight": 2.0, "schedule": "linear", "margin": 0.25, "temperature": 3.0}


def stored(**sections):
    """An experiment.json as an earlier release wrote it."""
    tree = load_experiment([QUICK]).model_dump(mode="json")
    return json.dumps(tree | sections)


@pytest.mark.parametrize(
    ("form", "its_own"),
    [
        ("euclidean", {}),
        ("cosine", {}),
        ("cosine_squared", {}),
        ("hinge", {"margin": 0.25}),
        ("kernel", {"temperature": 3.0}),
    ],
)
def test_a_repulsion_with_a_form_is_that_kind(form, its_own):
    experiment = Experiment.model_validate_json(stored(repulsion={"form": form, **OF_EVERY_FORM}))
    expected = {"kind": form, "pooling": "mean", "weight": 2.0, "schedule": "linear", **its_own}
    assert experiment.repulsion.model_dump() == expected
    published = {f"repulsion.{key}": value for key, value in {"form": form, **OF_EVERY_FORM}.items()}
    today = {key: value for key, value in stage_settings(experiment, "train").items() if key.startswith("repulsion.")}
    assert setting_changes(keys_of_today(published), today) == []


def test_no_gate_had_a_form():
    experiment = Experiment.model_validate_json(stored(gate={"form": "pair", "kind": "none"}))
    assert experiment.gate.model_dump() == {"kind": "none"}
    today = {key: value for key, value in stage_settings(experiment, "build_pairs").items() if key.startswith("gate.")}
    assert setting_changes(keys_of_today({"gate.form": "pair", "gate.kind": "none"}), today) == []


def test_a_manifest_is_read_with_the_names_of_today():
    config = {"train.lr": 1.0, "gate.kind": "linear", "gate.form": "pair", "repulsion.form": "cosine"}
    rest = {"inputs": {}, "files": {}, "rows": 0, "counts": {}, "timings": {}, "code_version": "0", "created_at": ""}
    made = Manifest.model_validate({"stage": "train", "iteration": 1, "shard": 0, "config": config, **rest})
    expected = {"train.lr": 1.0, "gate.kind": "linear", "gate.form": "pair", "repulsion.kind": "cosine"}
    assert made.config == expected
    assert Manifest.model_validate_json(made.model_dump_json()).config == expected


def test_a_users_file_with_a_form_is_that_kind(tmp_path):
    (tmp_path / "repulsion").mkdir()
    (tmp_path / "repulsion" / "ours.yaml").write_text("form: hinge\nmargin: 0.25\n")
    repulsion = load_experiment([QUICK, "repulsion=ours", "repulsion.weight=2"], tmp_path).repulsion
    assert (repulsion.kind, repulsion.margin, repulsion.weight) == ("hinge", 0.25, 2.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("repulsion.form=hinge", "repulsion.form: no such setting (did you mean repulsion.kind?)"),
        ("repulsion.margin=0.1", "repulsion.margin: no setting of repulsion=euclidean; it belongs to repulsion=hinge"),
        (
            "repulsion.function=a:b",
            "repulsion.function: no setting of repulsion=euclidean; it belongs to repulsion=custom",
        ),
        ("repulsion.kind=hing", "repulsion.kind=hing: no such kind; one of euclidean, cosine"),
        ("gate.exponent=3", "gate.exponent: no setting of gate=linear; it belongs to gate=power"),
        ("loss.beta=0.1", "loss.beta: no setting of loss=sppo; it belongs to loss=dpo or ipo or kto_pair"),
    ],
)
def test_a_setting_of_another_kind_is_refused_by_name(override, message):
    with pytest.raises(UserError) as refused:
        load_experiment([QUICK, override])
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("form", ["mean_overlap", "pairwise"])
def test_a_form_without_a_gate_is_refused_by_name(form):
    with pytest.raises(UserError, match=r"^gate\.form: no setting of gate=none; it belongs to gate=linear or power"):
        load_experiment([QUICK, "gate=none", f"gate.form={form}"])
