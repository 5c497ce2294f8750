"""The pages that are made of the code have every setting, every column and every fact."""

import re

import pyarrow as pa
import pytest

from nemo_sspo.artifacts import tables
from nemo_sspo.artifacts.table import Table
from nemo_sspo.config.describe import kinds_of_keys
from nemo_sspo.stages.runner.registry import STAGES
from scripts.reference_pages import artifacts, configuration, main
from tests.docs.pages import PAGES, ROOT


@pytest.fixture(scope="module")
def settings():
    return configuration()


def test_every_setting_of_every_kind(settings):
    leaves = {key for key in kinds_of_keys() if not any(other.startswith(f"{key}.") for other in kinds_of_keys())}
    missing = {key for key in leaves if not key.endswith(".kind") and f"| `{key}` |" not in settings}
    assert not {key for key in missing if key.count(".") < 2}
    assert "### gate.kind = sigmoid" in settings
    assert "`loss.beta`" in settings
    assert "May change in a started run" in settings


def test_a_table_has_as_many_cells_in_every_row(settings):
    for page in (settings, artifacts()):
        width = 0
        for line in page.splitlines():
            cells = line.replace("\\|", "").count("|")
            width = cells if line.startswith("|") and not width else width if line.startswith("|") else 0
            assert not line.startswith("|") or cells == width, line


def test_every_column_and_every_fact():
    page = artifacts()
    for table in vars(tables).values():
        if isinstance(table, Table):
            section = page.split(f"### {table.file}\n")[1].split("###")[0]
            assert all(f"| `{column.name}` | `{column.type}` |" in section for column in table.schema)
    for name, stage in STAGES.items():
        section = page.split(f"### {name}\n")[1].split("\n### ")[0]
        assert all(f"| `{fact}` |" in section for fact in stage.facts.model_fields)
    assert str(pa.float64()) in page


def test_pages_that_stand_elsewhere_are_copied(tmp_path):
    main(tmp_path)
    assert (tmp_path / "extending.md").read_text().startswith("# Contributing")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("configuration.md", "artifacts.md", "extending.md", "slurm.md", "toy.md")
    }


def test_every_page_is_in_the_menu():
    """`make docs` would say so; this needs no mkdocs."""
    menu = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in PAGES if not re.search(rf"[ :]{re.escape(page.name)}$", menu, re.MULTILINE)] == []
