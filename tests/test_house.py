"""House rules on names and English that a machine can check."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("sweeps", "pipelines", "methods", "platform")
RIDDLES = " of what who which where when how those these that such whose with from for as by if it "  # no nouns
NO_NOUNS = {"it", "each", "told", "found", "held", "said"}
FUNCTION_WORDS = (
    " a an the of who what which whether how those that this these for from with without as by if where when why our "
    "its it each every all any no nothing none only also at in on to beside under after before so such some both "
    "either several not "
)


@cache
def parsed(*folders: str) -> dict[Path, ast.Module]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT): ast.parse(path.read_text()) for path in paths}


def is_imperative(docstring: str) -> bool:
    """Return whether it begins with `->`, a shape in parentheses, or a capitalized word that can be a verb.

    Function words are no verbs, and no imperative ends in a single s.
    """
    first = docstring.split()[0]
    word = first.rstrip(",.:;")
    if first.startswith(("->", "(")):
        return True
    return word[0].isupper() and f" {word.lower()} " not in FUNCTION_WORDS and (word[-1] != "s" or word[-2:] == "ss")


def test_a_public_class_name_is_unique() -> None:
    places = defaultdict(list)
    for path, tree in parsed(*FOLDERS).items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_a_docstring_of_a_function_begins_with_a_verb_or_a_shape() -> None:
    dangling = [
        f"{path}:{node.lineno}: {docstring.splitlines()[0]}"
        for path, tree in parsed(*FOLDERS).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (docstring := ast.get_docstring(node))
        and not is_imperative(docstring)
    ]
    assert dangling == []


def test_a_docstring_of_a_class_or_module_begins_with_a_noun_phrase() -> None:
    riddles = [
        f"{path}: {docstring.splitlines()[0]}"
        for path, tree in parsed(*FOLDERS).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef)
        and (docstring := ast.get_docstring(node))
        and f" {docstring.split()[0].rstrip(',:').lower()} " in RIDDLES
    ]
    assert riddles == []


def test_a_variable_is_a_noun() -> None:
    odd = [
        f"{path}:{node.lineno}: {name}"
        for path, tree in parsed(*FOLDERS).items()
        for node in ast.walk(tree)
        for name in [node.arg if isinstance(node, ast.arg) else node.id if isinstance(node, ast.Name) else ""]
        if name in NO_NOUNS
    ]
    assert odd == []


def test_the_rule_tells_a_verb_from_a_dangling_phrase() -> None:
    assert all(map(is_imperative, ("Return a run.", "-> (K,): means.", "(B, N) -> the loss.", "Pass it on.")))
    assert not any(map(is_imperative, ("Of a study.", "What it says.", "Steps and values.", "`a` or `b`", "path: x")))
