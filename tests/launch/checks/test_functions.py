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

    assert problems("json:loads") == []
    (problem,) = problems("no_such_package.rules:f")
    assert problem.startswith(f"cluster.{environment}.python=")
    assert "lacks no_such_package" in problem
    for path in ("json", "json.loads", "9:f", "json:9", "no_such_package"):
        assert problems(path) == [f"{key}.function={path}: write it as package.module:function"]
