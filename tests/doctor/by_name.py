"""Checks by their names, and those that did not pass."""


def by_name(checks):
    found = {check.name: check for check in checks}
    assert all(check.note for check in found.values() if check.verdict != "passed")  # each says what to do
    return found


def wrong(checks):
    """(name, verdict) of what did not pass."""
    return [(check.name, check.verdict) for check in by_name(checks).values() if check.verdict != "passed"]
