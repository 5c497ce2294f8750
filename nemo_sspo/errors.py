"""The one exception that means "the input is wrong": its message is shown as it is, without a traceback."""

import re

_LONG_WORD = re.compile(r"\S{401,}")


def one_line(text: str) -> str:
    """A message in one line, without the middle of a path or value of more than 400 characters."""
    return _LONG_WORD.sub(lambda word: f"{word[0][:200]}…{word[0][-100:]}", " ".join(text.splitlines()))


class UserError(Exception):
    """Bad input: one line that names the file, row, field or flag, and what to do about it.

    Command-line entry points print ``error: <message>`` and exit with `EXIT_CODE`.
    """

    EXIT_CODE = 2

    def __str__(self) -> str:
        """The message in one line, also where a name in it holds a line break or is beyond measure."""
        return one_line(super().__str__())


class Interrupted(Exception):
    """A stage was told to stop and saved its state: it shall be started again and will continue.

    Command-line entry points exit with `EXIT_CODE`.
    """

    EXIT_CODE = 85
