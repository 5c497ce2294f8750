"""A function of the user's as the oracle: rules, a heuristic, a model of another library.

Its signature is ``function(rows: Sequence[Row], **arguments) -> Sequence[float]``: one logit per row, in order, > 0
where the first response is better. It gets every distinct row once and must judge each on its own.
"""

from collections.abc import Sequence

import numpy as np

from nemo_sspo.config.binding import import_function
from nemo_sspo.config.oracles import FunctionOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.deduplicated import Deduplicated
from nemo_sspo.oracle.protocol import OnProgress, OracleResources, Preferences, Row, silent


class Function:
    """A Python function behind the `PreferenceOracle` protocol."""

    def __init__(self, settings: FunctionOracle, resources: OracleResources | None = None) -> None:
        """Import the function; raises a UserError where its path leads nowhere."""
        del resources
        self._path, self._arguments = settings.function, settings.arguments
        self._function = import_function(settings.function, "oracle.function")

    def compare(self, rows: Sequence[Row], on_progress: OnProgress = silent) -> Preferences:
        """See `PreferenceOracle.compare`."""
        unique = Deduplicated(rows)
        returned = self._function(unique.items, **self._arguments)
        try:
            logits_U = np.asarray(returned, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise UserError(f"oracle.function={self._path}: returned no sequence of numbers ({error})") from None
        if logits_U.shape != (len(unique),):
            raise UserError(
                f"oracle.function={self._path}: returned logits of shape {logits_U.shape} for {len(unique)} rows; "
                "return one number per row"
            )
        on_progress(len(rows))
        return Preferences(logits_U[unique.places(rows)], np.zeros(len(rows), dtype=np.bool_), len(unique))
