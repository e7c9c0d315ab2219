"""Token authentication of Ray: it is on where a token exists, except for a client that is given an address."""

import os
from pathlib import Path


def use_token() -> None:
    """Have Ray send the token, if there is one. Call it before ray is imported, which reads the mode once."""
    held = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if "RAY_AUTH_TOKEN" in os.environ or held.exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
