"""What nvidia-smi answers: the driver without CUDA or torch."""

import shutil
import subprocess

SECONDS = 20
"""That it may take; with a GPU that has fallen off the bus it hangs."""


class NoAnswer(Exception):
    """It is there and gives no answer: says why, in a few words."""


def ask(*arguments: str) -> list[str] | None:
    """Lines of its answer; None where there is no nvidia-smi.

    Raises:
        NoAnswer: it fails, or takes longer than `SECONDS`.
    """
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        answer = subprocess.run(
            ["nvidia-smi", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"no answer within {SECONDS} s") from None
    except OSError as error:
        raise NoAnswer(error.strerror or "it does not start") from None
    if answer.returncode:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        raise NoAnswer(said[0] if said else f"exit code {answer.returncode}")
    return answer.stdout.splitlines()
