"""Token authentication of Ray, enabled where a token exists."""

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path


def use_token() -> bool:
    """Make Ray send the token, if there is one; return whether the user's own environment would not.

    Has no effect once ray is imported, which reads the mode.
    """
    needed = "ray" not in sys.modules and ("RAY_AUTH_TOKEN" in os.environ or _token_file().exists())
    if needed and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        return True
    return False


def ensure_token() -> None:
    """Write a token file that only its owner may read, if there is none; Ray would make it readable for everybody.

    Where the file cannot be written, the token is set in the environment of this process alone.
    """
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    path, token = _token_file(), secrets.token_hex(32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if path.stat().st_size == 0:
            path.write_text(token)
        path.chmod(0o600)
    except OSError:
        os.environ["RAY_AUTH_TOKEN"] = token


def _token_file() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
