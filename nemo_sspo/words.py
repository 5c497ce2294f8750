"""Numbers in sentences."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun: ``1 prompt``, ``2,000 prompts``; `plural` where it is not the noun and an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
