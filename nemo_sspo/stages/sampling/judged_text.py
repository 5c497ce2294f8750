"""The part of a response that oracle and encoder read: all of its text, or only the text after its reasoning."""

from collections.abc import Callable

from nemo_sspo.artifacts.facts.sampling import RolloutFacts
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.config.stages import Judging


def reader(judging: Judging, rollout: Artifact) -> Callable[[str], str]:
    """What is made of a text of `rollout` before it is judged."""
    if judging.reasoning == "judged":
        return lambda text: text
    opened = bool(rollout.facts(RolloutFacts).opens_reasoning)
    return lambda text: answer_of(text, judging.reasoning_tags, opened=opened)


def answer_of(text: str, tags: tuple[str, str], *, opened: bool = False) -> str:
    """The part of `text` behind the last end of its reasoning; empty where the reasoning never ends.

    Args:
        tags: what begins and what ends a reasoning.
        opened: the prompt has begun it.
    """
    begin, end = tags
    _, ended, answer = text.rpartition(end)
    if ended:
        return answer.lstrip()
    return "" if opened or text.lstrip().startswith(begin) else text


def opens_reasoning(prompt: str, tags: tuple[str, str]) -> bool:
    """Whether a rendered prompt ends inside a reasoning."""
    begin, end = tags
    return prompt.rfind(begin) > prompt.rfind(end)
