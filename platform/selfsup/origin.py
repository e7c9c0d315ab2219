"""Which code made a stage: noted beside it as it begins, compared before it is called done or gone on with.

What other code made is not counted until somebody says so: accepted, which is noted beside it too, or made again. A
stage that was begun before such notes were written is of unknown code, and counts.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

from selfsup import codebase
from selfsup.checkpoint import differences, flatten
from selfsup.errors import CodeError, SpecError
from selfsup.progress import several
from selfsup.stage import Stage, read_json
from selfsup.whole import remove, write

Answer = Literal["refuse", "accept", "again"]
NOTE, ACCEPTED = "code.json", "accepted.json"
UNKNOWN = "unknown"
LISTED = 3  # stages named in an error
REMEDY = "count them as they are with --accept-code, which is noted beside them, or make them anew with --again"


def code(stage: Stage) -> dict[str, Any]:
    """What would make it now. modules: name -> digest. of: key of a stage that it is made from -> what made that."""
    modules = dict(codebase.modules(*stage.entries))
    return {"modules": modules, "of": {below.key: _mark(below) for below in stage.after}}


def made(stage: Stage) -> dict[str, Any] | None:
    """What made it, in the form of `code`; None where that is not known."""
    held = _read(stage, NOTE)
    return held if _is_code(held) else None


def claim(stage: Stage) -> None:
    """Begin it, or go on with what `settle` has let pass. Raises SpecError where it was begun under other defaults."""
    if not stage.begun:
        stage.folder.mkdir(parents=True, exist_ok=True)
        write(stage.folder / NOTE, _text(code(stage)))
    stage.claim()


def changes(stage: Stage) -> tuple[str, ...]:
    """The modules that made it and are others now, and the stages that it is made from and were made anew since."""
    now, text = code(stage), _held(stage, NOTE)
    if text in ("", _text(now)) or not stage.begun:  # almost always: no need to read it
        return ()
    held = made(stage)
    if now in accepted(stage):
        return ()
    if held is None:
        return (f"{NOTE} (damaged)",)
    old, new = ({**one["modules"], **one["of"]} for one in (held, now))
    return tuple(name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name))


def defaults(stage: Stage) -> list[str]:
    """Knobs of a finished stage whose default is another now; what came since is the code's doing."""
    note = stage.folder / "stage.json"
    if not stage.done or not note.exists():
        return []
    here, there = (dict(flatten(knobs)) for knobs in (stage.settings, read_json(note)))
    both = here.keys() & there.keys()
    return differences(*({path: knobs[path] for path in both} for knobs in (here, there)))


def accepted(stage: Stage) -> list[dict[str, Any]]:
    """Code that it counts for beside its own."""
    held = _read(stage, ACCEPTED)
    return [code for code in held if _is_code(code)] if isinstance(held, list) else []


def others(stages: Iterable[Stage]) -> dict[str, tuple[str, ...]]:
    """Key -> `changes`, of those that have any."""
    return {stage.key: names for stage in stages if (names := changes(stage))}


def describe(stages: Collection[Stage], changed: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Lines of a plan: how many stages other code made, and which. changed: the `others` of them."""
    for names, number in Counter(changed.values()).items():
        yield f"made by other code: {several(number, 'stage')} (!); {' and '.join(names)} changed since"
    if changed:
        yield f"  {REMEDY}"
    if unknown := sum(stage.done and not (stage.folder / NOTE).exists() for stage in stages):
        yield f"made before code was noted: {several(unknown, 'stage')}, taken as they are"


def settle(stages: Iterable[Stage], answer: Answer) -> None:
    """See that what is there was made by this code, or else do as answered. stages: each after those it is made from.

    Raises CodeError where the answer is to refuse, SpecError for a changed default, which cannot be accepted.
    """
    cleared: set[str] = set()
    other: list[tuple[Stage, tuple[str, ...]]] = []
    for stage in {stage.key: stage for stage in stages}.values():
        new, names = defaults(stage), changes(stage)
        if answer == "again" and (new or names or any(below.key in cleared for below in stage.after)):
            clear(stage)
            cleared.add(stage.key)
        elif new:
            told = "\n  ".join([f"{stage.folder}: a default has changed since this was made (there):", *new])
            raise SpecError(f"{told}\nWrite the old value into the spec to have it so, or make it anew with --again")
        elif names and answer == "accept":
            write(stage.folder / ACCEPTED, _text([*accepted(stage), code(stage)]))
        elif names:
            other.append((stage, names))
    if other:
        raise _refusal(other)


def clear(stage: Stage) -> None:
    """Leave nothing of it, so that it begins anew."""
    with stage.held():
        for path in stage.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                remove(path)


def _refusal(other: list[tuple[Stage, tuple[str, ...]]]) -> CodeError:
    lines = [f"  {stage.folder}: {', '.join(names)}" for stage, names in other[:LISTED]]
    more = [f"  and {len(other) - LISTED} more"] if len(other) > LISTED else []
    were = "was" if len(other) == 1 else "were"
    head = f"{several(len(other), 'stage')} {were} made by other code than this; what changed since:"
    return CodeError("\n".join([head, *lines, *more, REMEDY[0].upper() + REMEDY[1:]]))


def _mark(stage: Stage) -> str:
    """A digest of what made a stage, or will make it."""
    text = _held(stage, NOTE)
    if not text and stage.begun:
        return UNKNOWN
    text = text or _text(code(stage))
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=4).hexdigest()


def _is_code(held: object) -> bool:
    parts = [held.get(name) for name in ("modules", "of")] if isinstance(held, dict) else [None]
    return all(isinstance(part, dict) for part in parts)


def _read(stage: Stage, name: str) -> Any:
    try:
        return json.loads(_held(stage, name))
    except (ValueError, RecursionError):
        return None


def _held(stage: Stage, name: str) -> str:
    """Its text, whatever it is; "" where there is none."""
    try:
        return (stage.folder / name).read_text(errors="surrogateescape")
    except OSError:
        return ""


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True) + "\n"
