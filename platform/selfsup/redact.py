"""Secrets in URLs: a URL is stored and shown all over, so none of ours may carry one, and no message repeats one.

A secret is a password before the host; for http and s3 also a name there, which may be a token or a key; and the value
in a query of what is named as one: key, token, signature ... A name alone, as in hdfs://user@host, is none.
"""

import re

REMEDY = (
    "a URL is stored and shown: leave passwords, keys and tokens out of it, and give them by the environment, such as "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
_PASSWORD = re.compile(r"(?<=://)[^\s/:@\[]*:(?!\d{1,5}(?:[/?#\s'\"]|$))\S*@")  # not the port of a host
_NAME = re.compile(r"\b(https?://|s3a?://)[^\s/@]*@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&;][\w.%~-]*(?:key|token|secret|passw|pwd|signature|sig|credential|auth)[\w.%~-]*=)(?:[^\s&;#'\"):]|:(?!\s|$))*",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text without the secrets of the URLs in it."""
    return _QUERY.sub(r"\1***", _NAME.sub(r"\1", _PASSWORD.sub("", text)))


def secret(url: str) -> bool:
    """Whether a URL carries one."""
    return redacted(url) != url
