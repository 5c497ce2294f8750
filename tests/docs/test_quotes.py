"""What the pages quote of the code is in the code: messages, settings, limits of the report's rules."""

import re

import pytest

from nemo_sspo.config.choices import groups
from nemo_sspo.config.describe import kinds_of_keys
from nemo_sspo.report.facts import verdict
from tests.docs.pages import PAGES, READ_ELSEWHERE, ROOT, settings_of_commands

SOURCE = " ".join(
    re.sub(r'"\s*f?"', "", re.sub(r"\s+", " ", path.read_text())) for path in (ROOT / "nemo_sspo").rglob("*.py")
)
"""All code, with strings that are continued on the next line joined."""
_SETTING = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+)(?:=[^`]*)?`")
_NO_SETTINGS = ("train.variables", "cluster.", "model.", "conf.", "experiment.")


def messages() -> list[str]:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    return re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)


@pytest.mark.parametrize("message", messages())
def test_a_message_is_one(message):
    assert message in SOURCE


def test_there_are_messages():
    assert len(messages()) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_setting_is_one(page):
    known = kinds_of_keys()
    for name in _SETTING.findall(page.read_text()):
        section = name.split(".")[0]
        if any(key.startswith(f"{section}.") for key in known) and not name.startswith(_NO_SETTINGS):
            below = any(key == name or key.startswith(f"{name}.") for key in known)
            assert below or name.startswith("data.template_arguments."), f"{page.name}: no such setting: {name}"


@pytest.mark.parametrize("page", [*PAGES, *READ_ELSEWHERE], ids=lambda page: page.name)
def test_what_a_command_sets_is_a_setting_or_a_choice(page):
    known, chosen = kinds_of_keys(), groups()
    for name in settings_of_commands(page):
        assert name in known or name in chosen, f"{page}: no such setting: {name}"


def test_commands_of_the_older_pages_are_found():
    found = {name for page in (ROOT / "docs" / "running.md", ROOT / "README.md") for name in settings_of_commands(page)}
    assert {"experiment", "policy", "prompts", "oracle.path", "iterations", "train.learning_rate"} <= found


def test_the_limits_of_the_rules():
    page = " ".join((ROOT / "docs" / "healthy.md").read_text().split())
    for limit, text in (
        (verdict.LENGTH_GROWTH, "grow by more than {} %"),
        (verdict.UNFINISHED_SHARE, "more than {} % of the sampled ones are cut"),
        (verdict.RANK_FALL, "states falls by more than {} %"),
        (verdict.DIVERSITY_FALL, "answers falls by more than {} %"),
        (verdict.DUPLICATE_SHARE, "more than {} % are duplicates"),
        (verdict.ORDER_FLIPS, "Order flips above {} %"),
    ):
        assert text.format(round(100 * limit)) in page
    assert f"length above {verdict.LENGTH_CORRELATION:g}" in page
