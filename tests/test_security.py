"""What infra/README.md says of faults and trust is held by the tests that it names, and by this one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "infra/README.md").read_text()
CLAIMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)(?:\[(\w+)\])?`", README)  # file, test and parameter
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def unpickling(source: str) -> Iterator[int]:
    """Yield the lines that may unpickle: loads of pickles, and those of torch and NumPy that take objects."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in UNPICKLERS:
            yield node.lineno
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        module, name = ast.unparse(node.func.value), node.func.attr
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if (
            (module in UNPICKLERS and name in {"load", "loads", "open", "Unpickler"})
            or (module == "torch" and name == "load" and given.get("weights_only", "True") != "True")
            or (module == "np" and name == "load" and given.get("allow_pickle", "False") != "False")
        ):
            yield node.lineno


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("x = 1\ncloudpickle.loads(x)", [2]),
        ("from pickle import loads", [1]),
        ("torch.load(x, weights_only=False)\ntorch.load(x, weights_only=True)\ntorch.load(x)", [1]),
        ("np.load(x)\nnp.load(x, allow_pickle=True)", [2]),
        ("cloudpickle.dumps(x)", []),
    ],
)
def test_what_unpickles_is_seen(source: str, lines: list[int]) -> None:
    assert list(unpickling(source)) == lines


def test_only_jobs_that_come_by_ray_are_unpickled() -> None:
    folders = ("platform", "methods", "pipelines", "sweeps")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in files if list(unpickling(path.read_text()))] == ["slot_server.py"]


def functions(path: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "name", "parameter"), CLAIMED)
def test_every_claim_of_faults_and_trust_names_a_test(path: str, name: str, parameter: str) -> None:
    decorators = map(ast.unparse, functions(path)[name].decorator_list)
    assert not parameter or any(re.search(rf"parametrize.*\b{parameter}\b", text) for text in decorators)


@pytest.mark.parametrize("heading", ["Faults", "What is trusted"])
def test_each_row_names_tests(heading: str) -> None:
    section = README.partition(f"\n# {heading}\n")[2].partition("\n# ")[0]
    _, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    assert rows
    assert [row for row in rows if not re.search(r"`tests/[^|]*\|$", row)] == []


@pytest.mark.parametrize("name", ["node_faults", "head_lost", "survival"])
def test_each_test_of_a_fault_is_named_in_a_row(name: str) -> None:
    path = f"tests/sweeps/test_{name}.py"
    tests = {name for name in functions(path) if name.startswith("test_")}
    assert tests == {claimed for file, claimed, _ in CLAIMED if file == path} != set()
    faults = {word for file, _, word in CLAIMED if file == path and word}
    given = re.findall(r'"fault", \[([\w, ]+)\]', (ROOT / path).read_text())
    assert faults == {word for words in given for word in words.split(", ")}
