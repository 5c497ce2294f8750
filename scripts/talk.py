"""Run a long, silent command and say every few seconds what it does and how far it is; all it said, if it fails.

`python -m scripts.talk "what it is" COMMAND...`; of a pip that reads a requirements file, packages are counted. With
`--bars` first, a command with bars of its own runs as it is where there is a terminal.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

SECONDS = 15.0
"""Between two lines."""
_LAST = 40
"""Lines of a failed command that are shown."""
_LONGEST = 60


def main(arguments: Sequence[str], every: float = SECONDS) -> int:
    """Run the command; returns its exit code."""
    has_bars = arguments[0] == "--bars"
    what, *command = arguments[1:] if has_bars else arguments
    if has_bars and sys.stderr.isatty():
        return subprocess.run(command).returncode
    begun = time.monotonic()
    said: list[str] = []
    print(f"{what} …", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    reader = threading.Thread(target=lambda: said.extend(line.rstrip() for line in process.stdout or ()))
    reader.start()
    while True:
        try:
            code = process.wait(every)
            break
        except subprocess.TimeoutExpired:
            print(f"  {time.monotonic() - begun:4.0f} s: {how_far(said, requirements(command))}", flush=True)
    reader.join()
    print(f"  {'done' if code == 0 else 'failed'} after {time.monotonic() - begun:.0f} s", flush=True)
    if code:
        print("\n".join(said[-_LAST:]), file=sys.stderr)
    return code


def requirements(command: Sequence[str]) -> int:
    """Packages of the requirements file that a command reads; 0 without one."""
    if "-r" not in command:
        return 0
    lines = Path(command[list(command).index("-r") + 1]).read_text(encoding="utf-8").splitlines()
    return sum(bool(line.strip()) and not line.startswith(("#", " ", "-")) for line in lines)


def how_far(said: Sequence[str], packages: int) -> str:
    """From what a command has said so far."""
    collected = sum(line.startswith("Collecting ") for line in said)
    if any(line.startswith("Installing collected packages") for line in said):
        return "everything is fetched, and is being installed"
    last = next((line.strip() for line in reversed(said) if line.strip()), "under way")
    if packages and collected:
        return f"{collected} of {packages} packages fetched or found"
    return last if len(last) <= _LONGEST else f"{last[:_LONGEST]}…"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
