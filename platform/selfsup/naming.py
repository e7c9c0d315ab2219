"""Names that become those of files and folders."""

import unicodedata

LONGEST = 100  # bytes: a file system takes 255, and endings are added


def unfit(name: str, longest: int = LONGEST) -> str:
    """Why a name cannot be a file's: it would lie elsewhere, or nobody could type it; "" where it can."""
    if name in (".", "..") or "/" in name or "\\" in name:
        return "a name of files, not a path: without / and \\, and neither . nor .."
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "a name of files: without control characters, line ends and halves of characters"
    if len(name.encode()) > longest:
        return f"a name of files: at most {longest} bytes, not {len(name.encode())}"
    return ""
