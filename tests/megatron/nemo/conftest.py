import pytest


@pytest.fixture(scope="session")
def trainer() -> str:
    """NeMo's binding alone, of all that run here."""
    return "nemo"
