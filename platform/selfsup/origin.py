"""The code that computed a stage, recorded in a note when it starts and compared before its result is used.

Results of other code do not count until the user accepts them, which is recorded, too, or has them computed again. A
stage from before such notes were written counts.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from selfsup import codebase
from selfsup.errors import CodeError, SpecError
from selfsup.homes import forget, publish
from selfsup.mirror_index import LOCK
from selfsup.progress import several
from selfsup.recall import recall
from selfsup.settings import changed
from selfsup.stage import Stage, read_json
from selfsup.whole import remove, write

CodePolicy = Literal["refuse", "accept", "again"]
NOTE, ACCEPTED = "code.json", "accepted.json"
UNKNOWN = "unknown"
MAX_LISTED = 3  # stages named in an error, and kinds of change in a plan
MAX_MODULES = 6  # named of a stage
REMEDY = "count them as they are with --accept-code, which is noted beside them, or make them anew with --again"


def current_code(stage: Stage) -> dict[str, Any]:
    """Return the code that computes a stage now.

    modules: name -> digest. of: key of a stage that it depends on -> digest of that stage's code.
    """
    is_own = all(entry.startswith(f"{codebase.PACKAGE}.") for entry in stage.entries)
    modules = _recalled(stage.home, stage.entries) if is_own else codebase.modules(*stage.entries)
    return {"modules": dict(modules), "of": {parent.key: _code_digest(parent) for parent in stage.after}}


@cache
def _recalled(home: Path, entries: tuple[str, ...]) -> Mapping[str, str]:
    """Return `codebase.modules` of selfsup's own, which takes a second to parse."""
    return dict(recall(home, ["modules", entries], lambda: dict(codebase.modules(*entries))))


def recorded_code(stage: Stage) -> dict[str, Any] | None:
    """Return the code that computed a stage, in the form of `current_code`; None where it is not known."""
    content = _read(stage, NOTE)
    return content if _is_code(content) else None


def claim(stage: Stage) -> None:
    """Start a stage, or continue one that `settle` accepted. Raises SpecError where its defaults have changed."""
    if not stage.begun:
        stage.folder.mkdir(parents=True, exist_ok=True)
        write(stage.folder / NOTE, _text(current_code(stage)))
    stage.claim()


def changes(stage: Stage) -> tuple[str, ...]:
    """Return the modules that have changed since a stage was computed, and stages below it computed anew since."""
    now, text = current_code(stage), _note_text(stage, NOTE)
    if text in ("", _text(now)) or not stage.begun:  # almost always, and fast
        return ()
    recorded = recorded_code(stage)
    if now in accepted_code(stage):
        return ()
    if recorded is None:
        return (f"{NOTE} (damaged)",)
    old, new = ({**code["modules"], **code["of"]} for code in (recorded, now))
    return tuple(name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name))


def changed_defaults(stage: Stage) -> list[str]:
    """Return the knobs of a finished stage whose default has changed."""
    note = stage.folder / "stage.json"
    if not stage.done or not note.exists():
        return []
    return changed(stage.settings, read_json(note))


def accepted_code(stage: Stage) -> list[dict[str, Any]]:
    """Return the versions of the code that a stage was accepted for, beside its own."""
    content = _read(stage, ACCEPTED)
    return [code for code in content if _is_code(code)] if isinstance(content, list) else []


def changes_by_key(stages: Iterable[Stage]) -> dict[str, tuple[str, ...]]:
    """Return key -> `changes` of the stages that have any."""
    return {stage.key: names for stage in stages if (names := changes(stage))}


def describe(stages: Collection[Stage], changed: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a plan about stages of other code. changed: their `changes_by_key`."""
    groups = Counter(changed.values()).most_common()
    for names, number in groups[:MAX_LISTED]:
        yield f"made by other code: {several(number, 'stage')} (!); {_shortened(names)} changed since"
    if rest := sum(number for _, number in groups[MAX_LISTED:]):
        yield f"made by other code: {several(rest, 'stage')} (!), for which others changed"
    if changed:
        yield f"  {REMEDY}"
    if unknown := sum(stage.done and not (stage.folder / NOTE).exists() for stage in stages):
        yield f"made before code was noted: {several(unknown, 'stage')}, taken as they are"


def settle(stages: Iterable[Stage], policy: CodePolicy) -> None:
    """Apply a policy to stages that other code computed. stages: each after those that it depends on.

    Raises CodeError under "refuse", and SpecError for a changed default, which cannot be accepted.
    """
    cleared: set[str] = set()
    refused: list[tuple[Stage, tuple[str, ...]]] = []
    for stage in {stage.key: stage for stage in stages}.values():
        defaults, names = changed_defaults(stage), changes(stage)
        if policy == "again" and (defaults or names or any(parent.key in cleared for parent in stage.after)):
            clear(stage)
            cleared.add(stage.key)
        elif defaults:
            lines = "\n  ".join([f"{stage.folder}: a default has changed since this was made (there):", *defaults])
            raise SpecError(f"{lines}\nWrite the old value into the spec to keep it, or make it anew with --again")
        elif names and policy == "accept":
            write(stage.folder / ACCEPTED, _text([*accepted_code(stage), current_code(stage)]))
            publish(stage.folder / ACCEPTED)
        elif names:
            refused.append((stage, names))
    if refused:
        raise _refusal(refused)


def clear(stage: Stage) -> None:
    """Remove all files of a stage, so that it starts anew."""
    with stage.held():
        forget(stage.folder)
        for path in stage.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                remove(path)


def _refusal(stages: list[tuple[Stage, tuple[str, ...]]]) -> CodeError:
    lines = [f"  {stage.folder}: {_shortened(names)}" for stage, names in stages[:MAX_LISTED]]
    more = [f"  and {len(stages) - MAX_LISTED} more"] if len(stages) > MAX_LISTED else []
    were = "was" if len(stages) == 1 else "were"
    head = f"{several(len(stages), 'stage')} {were} made by other code than this; changed since:"
    return CodeError("\n".join([head, *lines, *more, REMEDY[0].upper() + REMEDY[1:]]))


def _shortened(modules: Sequence[str]) -> str:
    """Return modules as text, objectives and evaluations first."""
    first = sorted(modules, key=lambda name: not name.startswith(("methods.", "evals.")))[:MAX_MODULES]
    more = len(modules) - len(first)
    return f"{', '.join(first)} and {several(more, 'other')}" if more else " and ".join(first)


def _code_digest(stage: Stage) -> str:
    """Return a digest of the code that computed a stage, or will compute it."""
    text = _note_text(stage, NOTE)
    if not text and stage.begun:
        return UNKNOWN
    text = text or _text(current_code(stage))
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=4).hexdigest()


def _is_code(content: object) -> bool:
    parts = [content.get(name) for name in ("modules", "of")] if isinstance(content, dict) else [None]
    return all(isinstance(part, dict) for part in parts)


def _read(stage: Stage, name: str) -> Any:
    try:
        return json.loads(_note_text(stage, name))
    except (ValueError, RecursionError):
        return None


def _note_text(stage: Stage, name: str) -> str:
    """Return the text of a file beside a stage, valid or not; "" where there is none."""
    try:
        return (stage.folder / name).read_text(errors="surrogateescape")
    except OSError:
        return ""


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True) + "\n"
