"""What infra/README.md says of trust is held by the tests that it names, and by this one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CLAIMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "infra/README.md").read_text())
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


@pytest.mark.parametrize(("path", "name"), CLAIMED)
def test_every_claim_of_trust_names_a_test(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
