"""Token authentication of Ray: it is on where a token exists, except for a client that is given an address."""

import os
import sys
from pathlib import Path


def use_token() -> None:
    """Have Ray send the token, if there is one. Without effect once ray is imported: it has read the mode by then."""
    held = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if "ray" not in sys.modules and ("RAY_AUTH_TOKEN" in os.environ or held.exists()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
