"""A chat template is a program: it is tried in a process of its own, whose time and memory are limited."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from nemo_sspo.errors import UserError

_CPU_SECONDS, _SECONDS = 5, 20
_MEMORY_BYTES = 512 * 2**20
_MOST_CHARACTERS = 2**20


def refuse_endless(file: Path, text: str, variables: Mapping[str, Any]) -> None:
    """Compile a template and render short conversations with it; what else is wrong with it is left to the caller.

    Raises:
        UserError: it is too long, or does not end within seconds and half a gibibyte.
    """
    if len(text) > _MOST_CHARACTERS:
        raise UserError(f"{file}: a chat template of {len(text)} characters, more than any has; correct it")
    if not _ends(text, json.dumps(variables, sort_keys=True)):
        raise UserError(
            f"{file}: the chat template does not come to an end within {_CPU_SECONDS} s and "
            f"{_MEMORY_BYTES // 2**20} MiB for a question of two words; correct it"
        )


@lru_cache(maxsize=32)
def _ends(text: str, variables: str) -> bool:
    given = json.dumps({"text": text, "variables": json.loads(variables)})
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    try:
        subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=given.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.SubprocessError:
        return False
    return True


def _try(text: str, variables: Mapping[str, Any]) -> None:
    from nemo_sspo.tokens.chat_template import ANSWER, QUESTION, compiled, rendered

    system, question = {"role": "system", "content": QUESTION}, {"role": "user", "content": QUESTION}
    template = compiled(text)
    for messages in ([question], [question, {"role": "assistant", "content": ANSWER}], [system, question]):
        try:
            rendered(template, messages, variables, prompting=len(messages) == 1)
        except MemoryError:
            raise
        except Exception:  # said by the caller, which renders it too
            continue


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    with suppress(Exception):
        try:
            _try(**json.load(sys.stdin))
        except MemoryError:
            sys.exit(1)
