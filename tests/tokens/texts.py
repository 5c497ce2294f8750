"""Texts that tokenizers are compared on."""

import random


def unicode_texts(count: int) -> list[str]:
    """Texts of characters that normalizations replace, and of marks that combine with them."""
    blocks = [(0x20, 0x7E)] * 5 + [(0xA0, 0x24F), (0x300, 0x36F), (0x2000, 0x214F), (0xFB00, 0xFDFF), (0xFF00, 0xFFEF)]
    draw = random.Random(0)
    return ["".join(chr(draw.randint(*draw.choice(blocks))) for _ in range(draw.randint(1, 20))) for _ in range(count)]
