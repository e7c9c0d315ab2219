"""Token authentication of Ray: it is on where a token exists, except for a client that is given an address."""

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path


def use_token() -> None:
    """Have Ray send the token, if there is one. Without effect once ray is imported: it has read the mode by then."""
    if "ray" not in sys.modules and ("RAY_AUTH_TOKEN" in os.environ or _file().exists()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def own_token() -> None:
    """Have a token before Ray starts, which would write it for everybody to read; where nothing can be written, one
    that ends with this process.
    """
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    path, token = _file(), secrets.token_hex(32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if path.stat().st_size == 0:
            path.write_text(token)
        path.chmod(0o600)
    except OSError:
        os.environ["RAY_AUTH_TOKEN"] = token


def _file() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
