"""Backbones from outside of timm, as `backbone.name` names them.

    name: my_lab.models:small      # a callable that returns a module: (B, C, H, W) -> (B, D) or a map, (B, D, h, w)
    name: hf:Dinov2Config          # a vision model of transformers by the class of its config, at its defaults
    name: hf:models/tiny           # or by a folder with its config.json

A callable is given those settings of `backbone` that its parameters are named after: image_size, patch_size, width,
depth, heads, drop_path; and, by the name in_chans, the channels of the data. A model of transformers is given
image_size, drop_path and the channels; its config says the rest. Nothing is downloaded, and no code in a folder is run.
"""

import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfsup import outside
from selfsup.errors import SpecError
from selfsup.outside import CONFIG, HUGGING_FACE
from selfsup.stand_ins import need_torch

GIVEN = ("image_size", "patch_size", "width", "depth", "heads", "drop_path")  # what a callable may ask for by name
CHANNELS = "in_chans"  # and this, as timm calls it


def problem(name: str) -> str | None:
    """Return why a backbone from outside cannot be found; None where it can."""
    try:
        config(name) if name.startswith(HUGGING_FACE) else factory(name)
    except SpecError as error:
        return error.bare
    return None


def idle(name: str) -> set[str]:
    """Return the settings of `backbone` that change nothing of one from outside."""
    if name.startswith(HUGGING_FACE):
        fixed = {"patch_size", "width", "depth", "heads", "positions", "qk_norm", "init", "stem"}
        return fixed if hasattr(config(name), "drop_path_rate") else {*fixed, "drop_path"}
    asked = {"image_size", *inspect.signature(factory(name)).parameters}
    return {"positions", "init", "pool", "qk_norm", "class_tokens", "stem", *GIVEN} - asked


def portable(name: str) -> str:
    """Return a name that means the same elsewhere: for a folder of a config, the config as JSON."""
    if not outside.is_config_folder(name):
        return name
    return HUGGING_FACE + json.dumps(_values(name), sort_keys=True)


def factory(name: str) -> Callable[..., Any]:
    """Return the callable of that name. Raises SpecError where there is none."""
    if not outside.CLASS.fullmatch(name):
        raise SpecError(f"expected module:callable, as in my_lab.models:small, or hf:Dinov2Config, not '{name}'")
    module, _, attribute = name.partition(":")
    target = getattr(outside.imported(name), attribute, None)
    if not callable(target):
        raise SpecError(f"{module} has no callable {attribute}")
    return target  # type: ignore[no-any-return]


def config(name: str) -> Any:
    """Return the config of a model of transformers. Raises SpecError where there is none."""
    if importlib.util.find_spec("transformers") is None:
        raise SpecError(f"{name} needs transformers, which is not installed; pip install it where selfsup runs")
    need_torch()
    import transformers

    if CONFIG.fullmatch(name):
        kind = getattr(transformers, name.removeprefix(HUGGING_FACE), None)
        if kind is None:
            raise SpecError(f"transformers {transformers.__version__} has no {name.removeprefix(HUGGING_FACE)}")
        return kind()
    values = _values(name)
    try:
        return transformers.CONFIG_MAPPING[values["model_type"]].from_dict(values)
    except Exception as error:  # whatever a config of transformers raises
        raise SpecError(f"transformers has no such config: {type(error).__name__}: {error}") from error


def _values(name: str) -> dict[str, Any]:
    """Return the content of a folder's config.json, or of the JSON that a saved encoder has in its place."""
    text = name.removeprefix(HUGGING_FACE)
    try:
        values = json.loads(text if text.startswith("{") else (Path(text) / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(
            f"expected a config of transformers or a folder with its config.json: {text}: {reason}"
        ) from None
    if not isinstance(values, dict):
        raise SpecError(f"{text}/config.json holds no mapping")
    return values
