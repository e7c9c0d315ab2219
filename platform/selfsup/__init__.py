"""selfsup: self-supervised learning sweeps you can trust.

What a user imports comes from here; a name is loaded when it is first asked for, so nothing waits for torch in vain.
"""

import importlib
from typing import TYPE_CHECKING, Any

from selfsup.knob import Choice, Knobs, Range, knob  # now, or the module would take the function's name

if TYPE_CHECKING:
    from selfsup.augmentation import Augmentation
    from selfsup.batch import Batch
    from selfsup.encoder import Encoder
    from selfsup.errors import SelfsupError
    from selfsup.evaluator import Evaluator, Features, Metric
    from selfsup.method import Method, Out
    from selfsup.pretrained import PretrainedEncoder, load_encoder
    from selfsup.spec import Run, Spec, read
    from selfsup.sweeps.reports import plan, report
    from selfsup.sweeps.session import sweep
    from selfsup.views import Center, Crop, MapSpec, Views

__all__ = [
    "Augmentation",
    "Batch",
    "Center",
    "Choice",
    "Crop",
    "Encoder",
    "Evaluator",
    "Features",
    "Knobs",
    "MapSpec",
    "Method",
    "Metric",
    "Out",
    "PretrainedEncoder",
    "Range",
    "Run",
    "SelfsupError",
    "Spec",
    "Views",
    "knob",
    "load_encoder",
    "plan",
    "read",
    "report",
    "sweep",
]

_HOMES = {
    "augmentation": ["Augmentation"],
    "batch": ["Batch"],
    "encoder": ["Encoder"],
    "errors": ["SelfsupError"],
    "evaluator": ["Evaluator", "Features", "Metric"],
    "method": ["Method", "Out"],
    "pretrained": ["PretrainedEncoder", "load_encoder"],
    "spec": ["Run", "Spec", "read"],
    "sweeps.reports": ["plan", "report"],
    "sweeps.session": ["sweep"],
    "views": ["Center", "Crop", "MapSpec", "Views"],
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"selfsup.{module}"), name)
    raise AttributeError(f"module 'selfsup' has no attribute {name!r}")
