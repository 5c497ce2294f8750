"""What every configuration object has in common."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable configuration object that refuses unknown keys; the text under a field is its meaning."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        coerce_numbers_to_str=True,  # `name=7` and OMP_NUM_THREADS: 1 reach us as numbers
    )
