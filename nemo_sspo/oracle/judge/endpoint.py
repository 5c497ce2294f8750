"""Where an LLM judge is reached and with which key, checked before anything is sent. No network library."""

import os
from urllib.parse import urlsplit

from nemo_sspo.config.oracles import LlmJudgeOracle
from nemo_sspo.errors import UserError

NO_KEY = "none"
"""Sent to an endpoint that wants no key."""


def check_endpoint(settings: LlmJudgeOracle) -> None:
    """Refuse a URL that is none, or that carries a password: it would end up in manifests and logs."""
    try:
        parts = urlsplit(settings.endpoint)
        reachable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise UserError("oracle.endpoint: not a URL; give the API's base, https://host/v1") from None
    if parts.username is not None or parts.password is not None or parts.query:
        raise UserError(
            "oracle.endpoint: holds a user name, a password or a query, which would be stored with the run; give the "
            "key in the environment variable that oracle.api_key_variable names"
        )
    if not reachable:
        raise UserError(f"oracle.endpoint={settings.endpoint}: not a URL; give the API's base, https://host/v1")


def api_key(settings: LlmJudgeOracle) -> str:
    """The key from the environment.

    Raises:
        UserError: the variable is not set.
    """
    if settings.api_key_variable is None:
        return NO_KEY
    key = os.environ.get(settings.api_key_variable, "").strip()
    if not key:
        raise UserError(
            f"oracle.api_key_variable={settings.api_key_variable}: not set; export it, or give "
            "oracle.api_key_variable=null for an endpoint without a key"
        )
    return key
