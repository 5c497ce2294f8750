"""Numbers in sentences."""

from nemo_sspo.words import counted


def test_one_is_singular_and_all_else_plural():
    assert [counted(count, "prompt") for count in (0, 1, 2, 2000)] == [
        "0 prompts",
        "1 prompt",
        "2 prompts",
        "2,000 prompts",
    ]
    assert [counted(count, "query", "queries") for count in (1, 2)] == ["1 query", "2 queries"]
