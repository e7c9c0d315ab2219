"""Given weights of a backbone: what their file holds, under whatever name checkpoints keep an encoder."""

import difflib
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache, partial
from os import stat_result
from pathlib import Path
from typing import Any

import timm
from timm.models import adapt_input_conv, load_state_dict
from torch import Tensor, nn

from selfsup import tensors
from selfsup.errors import SpecError
from selfsup.sections import Backbone, InputShape

State = Mapping[str, Tensor]
OBJECTS = (
    "it holds Python objects beside tensors, which are not loaded: where you trust it, save its weights alone, by "
    "torch.save(torch.load(OLD, weights_only=False)['state_dict'], NEW)"
)
MAX_NAMES = 3  # of each kind in a message
USUAL = (  # of several encoders in a file, what papers evaluate
    *("teacher", "teacher_backbone", "encoder_q", "base_encoder", "encoder"),
    "backbone",  # beside backbone_momentum, momentum_backbone of lightly and solo-learn
)


def content(path: str | Path) -> str:
    """Return a digest of a file, computed anew when its status changes. Raises SpecError where there is no file."""
    path = _present(path)
    return _content(path, _version(path.stat()))


def _present(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise SpecError(f"there is no file {path}; for timm's own weights, say timm", "backbone.weights")
    return Path(path)


def _version(status: stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=64)
def _content(path: Path, version: tuple[int, ...]) -> str:  # noqa: ARG001
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def fill(trunk: Any, backbone: Backbone, shape: InputShape) -> None:
    """Load all of them or none; the classifier is left out, positions and patches are resampled to the sizes asked for.

    Weights of RGB are repeated, or summed for gray, where samples have other channels, as timm does.

    Raises SpecError for weights that cannot be read, or that do not fit.
    """
    state, head = _of_channels(given(backbone, trunk), trunk, shape.channels), trunk.pretrained_cfg["classifier"]
    if backbone.is_vit:
        _check_registers(state, trunk, backbone)
        state = _converted(state, trunk, backbone)
    put({name: value for name, value in state.items() if not name.startswith(f"{head}.")}, trunk, backbone)


def _of_channels(state: State, trunk: Any, channels: int) -> State:
    """Return weights of RGB as those of other channels: summed for one, repeated and scaled down for more."""
    first = trunk.pretrained_cfg["first_conv"]
    names = [f"{name}.weight" for name in ((first,) if isinstance(first, str) else first or ())]
    rgb = [name for name in names if name in state and state[name].ndim == 4 and state[name].shape[1] == 3]
    adapted = {name: adapt_input_conv(channels, state[name]) for name in rgb if channels != 3}
    return {**state, **adapted}


def given(backbone: Backbone, module: nn.Module) -> State:
    """Return the part of the given weights that fits a module. Raises SpecError where they cannot be read."""
    state, wanted = _read(backbone), module.state_dict()
    flat = dict(_flat(state))
    namings = [{names(name): name for name in wanted} for names in _numberings(module)]
    own = max(namings, key=lambda names: max(_fitting(flat, names).values(), default=0))
    part = unwrapped(state, {name: wanted[own[name]] for name in own})
    return {own.get(name, name): value for name, value in part.items()}


def _numberings(module: nn.Module) -> Iterator[Callable[[str], str]]:
    """Yield namings of weights: as they are, or with their module's number in an nn.Sequential of its children.

    These are all children, as in lightly's examples, or those with weights, as in lightly's own ResNets.
    """
    yield str
    children = dict(module.named_children())
    for names in (list(children), [name for name, child in children.items() if child.state_dict()]):
        numbers = {name: str(number) for number, name in enumerate(names)}
        yield partial(_numbered, numbers)


def _numbered(numbers: Mapping[str, str], name: str) -> str:
    """Return a name with its first part numbered: layer1.0.conv1.weight -> 4.0.conv1.weight."""
    first, dot, rest = name.partition(".")
    return f"{numbers.get(first, first)}{dot}{rest}"


def put(state: State, module: nn.Module, backbone: Backbone) -> None:
    """Load weights into a module. Raises SpecError where they do not fit."""
    wanted = module.state_dict()
    if wrong := tensors.mismatches(state, wanted, tensors.shape):
        raise _unfit(backbone, _foreign(state, wanted) or wrong)
    module.load_state_dict(state)


def _foreign(state: State, wanted: State) -> str:
    """Return which part of other weights is closest to those wanted; "" where half of these are there."""
    flat = dict(_flat(state))
    fitting = _fitting(flat, wanted)
    if 2 * fitting[""] >= len(wanted):
        return ""
    named = f"it has names such as {', '.join(list(flat)[:MAX_NAMES])}, not such as {', '.join(list(wanted)[-2:])}"
    if not fitting.total():
        return f"none of its {len(flat)} tensors is called as one of the {len(wanted)} weights: {named}"
    prefix, number = fitting.most_common(1)[0]
    return f"its closest part, under '{prefix}', has {number} of the {len(wanted)} weights: {named}"


def unwrapped(state: Mapping[str, Any], wanted: State) -> State:
    """Return the part of a checkpoint that is a trunk with the weights `wanted`, under its own names.

    That part may lie in mappings (state_dict, model, teacher) and behind prefixes (module., backbone. ...), nested in
    any order; a mapping with less than half of the names is returned as it is. Raises SpecError where several parts fit
    alike.
    """
    flat = dict(_flat(state))
    fitting = _fitting(flat, wanted)
    most = max(fitting.values(), default=0)
    if 2 * most < len(wanted):
        return state
    best = [prefix for prefix in sorted(fitting) if fitting[prefix] == most]
    prefix = best[0] if len(best) == 1 else _chosen(best)
    return {name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)}


def _fitting(flat: Collection[str], wanted: Collection[str]) -> Counter[str]:
    """Return prefix -> number of wanted names behind it."""
    ends = ((name, name.split(".", cut)[-1]) for name in flat for cut in range(name.count(".") + 1))
    return Counter(name.removesuffix(end) for name, end in ends if end in wanted)


def _flat(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            yield f"{prefix}{name}", value


def _chosen(prefixes: list[str]) -> str:
    for word in USUAL:
        if len(named := [prefix for prefix in prefixes if word in prefix.split(".")]) == 1:
            return named[0]
    raise SpecError(
        f"it holds several encoders, under {', '.join(prefixes)}: save the one you mean", "backbone.weights"
    )


def _read(backbone: Backbone) -> Mapping[str, Any]:
    assert backbone.weights
    if backbone.weights != "timm":
        _present(backbone.weights)
    try:
        if backbone.weights == "timm":
            return dict(timm.create_model(backbone.name, pretrained=True).state_dict())
        if backbone.weights.endswith(".safetensors"):
            return tensors.load(backbone.weights)[0]  # which may carry a digest of ours
        return dict(load_state_dict(backbone.weights, use_ema=False))
    except Exception as error:  # whatever readers and downloads raise, it is the same mistake
        reason = OBJECTS if "Unsupported globals" in str(error) else error  # as timm says it
        message = f"cannot load {backbone.weights} for {backbone.name}: {reason}"
        raise SpecError(message, "backbone.weights") from error


def _converted(state: State, trunk: Any, backbone: Backbone) -> State:
    try:
        convert = sys.modules[type(trunk).__module__].checkpoint_filter_fn  # each class of timm has its own
        return dict(convert(dict(state), trunk))
    except Exception as error:  # it takes for granted what else the file holds
        raise _unfit(backbone, f"{type(error).__name__}: {error}") from error


def _check_registers(state: State, trunk: Any, backbone: Backbone) -> None:
    """Raise SpecError where weights and ViT differ in registers: timm's names for DINOv2 come with them and without."""
    registers = next((len(state[name][0]) for name in ("reg_token", "register_tokens") if name in state), 0)
    own = getattr(trunk, "reg_token", None)
    wanted = 0 if own is None else own.shape[1]
    if registers == wanted:
        return
    others = [name for name in timm.list_models() if ("_reg" in name) is bool(registers)]
    near = difflib.get_close_matches(backbone.name, [name for name in others if _size(name) == _size(backbone.name)])
    hint = f"; set backbone.name: {near[0]}" if near else ""
    raise _unfit(backbone, f"the file has {registers} register tokens, {backbone.name} has {wanted}{hint}")


def _size(name: str) -> list[str]:
    """Return the first words of a name: vit_small_patch14_dinov2 -> vit, small, patch14."""
    return name.split("_")[:3]


def _unfit(backbone: Backbone, why: str) -> SpecError:
    return SpecError(f"{backbone.weights} does not fit {backbone.name}: {why}", "backbone.weights")
