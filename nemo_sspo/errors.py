"""The one exception that means "the input is wrong": its message is shown as it is, without a traceback."""


class UserError(Exception):
    """Bad input: one line that names the file, row, field or flag, and what to do about it.

    Command-line entry points print ``error: <message>`` and exit with `EXIT_CODE`.
    """

    EXIT_CODE = 2
