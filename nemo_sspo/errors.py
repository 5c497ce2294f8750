"""The one exception that means "the input is wrong": its message is shown as it is, without a traceback."""


class UserError(Exception):
    """Bad input: one line that names the file, row, field or flag, and what to do about it.

    Command-line entry points print ``error: <message>`` and exit with `EXIT_CODE`.
    """

    EXIT_CODE = 2

    def __str__(self) -> str:
        """The message in one line, also where a name in it holds a line break."""
        return " ".join(super().__str__().splitlines())


class Interrupted(Exception):
    """A stage was told to stop and saved its state: it shall be started again and will continue.

    Command-line entry points exit with `EXIT_CODE`.
    """

    EXIT_CODE = 85
