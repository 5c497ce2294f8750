"""What is named by an import path is looked for before hours of sampling, in the environment that needs it."""

import pytest

from tests.launch.ready_run import found


@pytest.mark.parametrize(
    ("key", "kind", "environment"),
    [
        ("gate", "custom", "rollout"),
        ("loss", "custom", "train"),
        ("repulsion", "custom", "train"),
        ("oracle", "function", "rollout"),
    ],
)
def test_a_function_that_cannot_be_there(place, key, kind, environment):
    def given(path):
        named = (f"{key}={kind}", f"{key}.function='{path}'")
        return {"oracle": named} if key == "oracle" else {"overrides": named}

    def problems(path):
        settings = given(path)
        return found(*settings.pop("overrides", ()), **settings)

    (place / "rules.py").write_text("print('hello')\ndef f(*given, **settings): ...\nword = 'f'")
    (place / "broken.py").write_text("1 / 0")
    (place / "leaving.py").write_text("import sys; sys.exit(0)")
    assert problems("rules:f") == []
    for path, reason in (
        ("rules.more:f", "No module named 'rules.more'; 'rules' is not a package"),
        ("rules:g", "module 'rules' has no attribute 'g'"),
        ("broken:f", "ZeroDivisionError: division by zero"),
        ("leaving:f", "SystemExit: 0"),
    ):
        (problem,) = problems(path)
        assert problem.startswith(f"{key}.function={path}: cannot be imported ({reason})")
    assert problems("rules:word") == [f"{key}.function=rules:word: not a function"]
    (problem,) = problems("no_such_package.rules:f")
    assert problem.startswith(f"cluster.{environment}.python=")
    assert "lacks no_such_package" in problem
    for path in ("json", "json.loads", "9:f", "json:9", "no_such_package"):
        assert problems(path) == [f"{key}.function={path}: write it as package.module:function"]


def test_a_function_that_cannot_be_called_so(place):
    (place / "rules.py").write_text("def f(): ...")
    (problem,) = found("loss=custom", "loss.function=rules:f")
    assert problem.startswith("loss.function=rules:f: cannot be called as f(")


def test_a_logger_that_is_not_there(place):
    (place / "wandb.py").write_text("import no_such_package")
    (problem,) = found("train.loggers=[wandb]")
    assert problem.startswith("train.loggers: wandb is not installed (No module named 'no_such_package')")
    (place / "wandb.py").write_text("")
    assert found("train.loggers=[wandb]") == []


def test_a_module_that_waits(place, monkeypatch):
    monkeypatch.setattr("nemo_sspo.stages.runner.importable.SECONDS", 3)
    (place / "waiting.py").write_text("import threading; threading.Event().wait()")
    (problem,) = found("loss=custom", "loss.function=waiting:f")
    assert "what the settings name is not imported within 3 s" in problem
