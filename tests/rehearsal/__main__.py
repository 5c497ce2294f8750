"""python -m tests.rehearsal ARGUMENTS...: Python with these arguments, on a pretended H100.

python -m tests.rehearsal -m pytest tests/rehearsal
python -m tests.rehearsal -m tests.rehearsal.table
"""

from __future__ import annotations

import os
import sys

from tests.rehearsal.cuda_runtime import build, environment


def main() -> None:
    build()
    variables = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], variables | environment())


if __name__ == "__main__":
    main()
