"""Whether a program that loads a model's tokenizer by itself reads what its file says: ``python -m
nemo_sspo.tokens.check DIRECTORY``, in that program's environment. 0 where it does, 2 and a line where it does not."""

import sys
from pathlib import Path

from nemo_sspo.errors import UserError
from nemo_sspo.tokens.library import first_difference
from nemo_sspo.tokens.own_file import own_file


def main(arguments: list[str] | None = None) -> int:
    """Compare the tokenizer of a directory as transformers loads it with its own file."""
    (directory,) = sys.argv[1:] if arguments is None else arguments
    try:
        file = own_file(Path(directory))
        from transformers import AutoTokenizer, __version__

        if (difference := first_difference(AutoTokenizer.from_pretrained(directory), file)) is None:
            return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return UserError.EXIT_CODE
    print(f"error: transformers {__version__} gives other tokens than {file.path}: {difference}", file=sys.stderr)
    return UserError.EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
