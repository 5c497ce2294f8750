"""Facts that are chosen by the test, as a manifest of another release may have them."""

from typing import Annotated, Any

from nemo_sspo.artifacts.facts.base import Facts, Keys


class SomeFacts(Facts):
    """Any facts, by the keys of a manifest."""

    chosen: Annotated[dict[str, Any], Keys("{}")]


def some_facts(**counts: Any) -> SomeFacts:
    """These, and no others."""
    return SomeFacts(chosen=counts)
