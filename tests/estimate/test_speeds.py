"""Files of speeds."""

from pathlib import Path

import pytest
import yaml

from nemo_sspo.errors import UserError
from nemo_sspo.estimate.speeds import PUBLISHED, read_speeds


def test_every_published_figure_has_its_source():
    speeds = read_speeds()
    figures = set(type(speeds).model_fields) - {"gpu", "published", "sources"}
    assert speeds.published
    assert set(speeds.sources) == figures


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"products": {"bf16": 1.0, "fp8": 1.0}}, "products.fp32"),
        ({"memory_gib": -1}, "memory_gib"),
        ({"memory_gib": "much"}, "memory_gib"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_figure_that_is_none_is_named(change, told, tmp_path: Path):
    path = tmp_path / "speeds.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(PUBLISHED.read_text()) | change))
    with pytest.raises(UserError, match=f"{path}: {told}: .*profile"):
        read_speeds(path)


@pytest.mark.parametrize("text", ["- 1\n", "", "{", "gpu: &a [*a]\n"])
def test_a_file_that_is_no_mapping_is_named(text, tmp_path: Path):
    path = tmp_path / "speeds.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=str(path)):
        read_speeds(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.yaml"):
        read_speeds(tmp_path / "none.yaml")
