"""Tokenizers of captions: bytes, which need nothing; CLIP's BPE, as open_clip ships it; and those of `tokenizers`."""

import hashlib
import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from selfsup.errors import SpecError

BYTES, CLIP = "bytes", "clip"
REMEDY = "run `pip install 'selfsup[text]'` wherever selfsup runs"


class Tokenizer(NamedTuple):
    """A tokenizer. encode: a text -> numbers of its tokens. size: of the vocabulary, with begin and end of a text."""

    encode: Callable[[str], list[int]]
    size: int
    begin: int
    end: int

    def tokens(self, text: str, length: int) -> list[int]:
        """Return a text between `begin` and `end`, in at most `length` tokens: of a longer one the beginning."""
        return [self.begin, *self.encode(text)[: length - 2], self.end]


def is_file(name: str) -> bool:
    """Return whether a tokenizer is named by its file."""
    return name not in (BYTES, CLIP)


def check(name: str) -> None:
    """Raise SpecError where a tokenizer, `bytes`, `clip` or a file of `tokenizers`, cannot be used here."""
    needed = {BYTES: "codecs", CLIP: "open_clip"}.get(name, "tokenizers")
    if importlib.util.find_spec(needed) is None:
        raise SpecError(
            f"the tokenizer {name} needs {needed}, which is not installed: {REMEDY}", "input.text.tokenizer"
        )
    if is_file(name) and not Path(name).is_file():
        expected = f"expected {BYTES}, {CLIP}, or a file that `tokenizers` saved"
        raise SpecError(f"there is no file {name}; {expected}", "input.text.tokenizer")


def content(name: str) -> str:
    """Return a digest of the file of a tokenizer. Raises SpecError where there is none."""
    check(name)
    return hashlib.blake2b(Path(name).read_bytes(), digest_size=16).hexdigest()


@lru_cache(maxsize=8)
def load(name: str) -> Tokenizer:
    """Return a tokenizer. Raises SpecError where it cannot be used."""
    check(name)
    if name == BYTES:
        return Tokenizer(lambda text: list(text.encode()), 258, 256, 257)
    return _clip() if name == CLIP else _file(name)


def _clip() -> Tokenizer:
    """Return the BPE of CLIP (Radford et al., arXiv 2103.00020), of text in lower case."""
    from open_clip.tokenizer import SimpleTokenizer

    own = SimpleTokenizer()
    return Tokenizer(own.encode, own.vocab_size, own.sot_token_id, own.eot_token_id)


def _file(path: str) -> Tokenizer:
    """Return a tokenizer that `tokenizers` saved; begin and end are two tokens after its own."""
    from tokenizers import Tokenizer as Saved

    try:
        own = Saved.from_file(path)
    except Exception as error:  # a bare Exception of its Rust code
        raise SpecError(f"{path}: no tokenizer that `tokenizers` saved: {error}", "input.text.tokenizer") from error
    size = own.get_vocab_size()
    return Tokenizer(lambda text: own.encode(text, add_special_tokens=False).ids, size + 2, size, size + 1)
