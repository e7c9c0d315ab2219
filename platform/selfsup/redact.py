"""Redaction of secrets in URLs: URLs are stored and shown, so specs may not carry any, and messages repeat none.

Secrets are a password before the host; for http and s3 also a user name there, which may be a token or a key; and the
value of a query parameter with a name such as key, token or signature. A user name alone, as in hdfs://user@host, is
none.
"""

import re

REMEDY = (
    "a URL is stored and shown: leave passwords, keys and tokens out of it, and set them in the environment, such as "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
_PASSWORD = re.compile(r"(?<=://)[^\s/:@\[]*:(?!\d{1,5}(?:[/?#\s'\"]|$))\S*@")  # not the port of a host
_NAME = re.compile(r"\b(https?://|s3a?://)[^\s/@]*@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&;][\w.%~-]*(?:key|token|secret|passw|pwd|signature|sig|credential|auth)[\w.%~-]*=)(?:[^\s&;#'\"):]|:(?!\s|$))*",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """Return a text without the secrets in its URLs."""
    return _QUERY.sub(r"\1***", _NAME.sub(r"\1", _PASSWORD.sub("", text)))


def has_secret(url: str) -> bool:
    """Return whether a URL carries a secret."""
    return redacted(url) != url
