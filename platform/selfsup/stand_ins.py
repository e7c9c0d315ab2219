"""Stand-ins for torch and timm, so that a command that only plans reads objectives without waiting four seconds.

What a plan asks of an objective's module, its knobs, views and checks, is plain Python. While stand-ins are in place,
`import torch` and the like give modules whose names can be imported, inherited from and decorated with, and written in
annotations. Whatever else is done with one raises `NeedsTorch`: so nothing is ever worked out with it.
"""

import sys
from importlib.machinery import ModuleSpec
from inspect import CO_OPTIMIZED
from types import ModuleType
from typing import Any, NoReturn

PACKAGES = "safetensors", "timm", "torch", "torchvision"


class NeedsTorch(BaseException):
    """The end of what can be done without torch; no error of anybody, so no handler of errors takes it for one."""


class Placeholder:
    """A name of a package that is not imported."""

    def __getattr__(self, name: str) -> "Placeholder":
        if name.startswith("__"):
            raise AttributeError(name)  # of protocols, such as __wrapped__
        return Placeholder()

    def __getitem__(self, _: Any) -> "Placeholder":
        return self

    def __or__(self, _: Any) -> "Placeholder":
        return self

    __ror__ = __or__

    def __mro_entries__(self, _: Any) -> tuple[type, ...]:
        return ()

    def __call__(self, *_: Any, **__: Any) -> "Placeholder":
        """Return what a module or a class holds, such as a decorated function; a function of theirs gets nothing."""
        if sys._getframe(1).f_code.co_flags & CO_OPTIMIZED:
            raise NeedsTorch
        return Placeholder()

    def __bool__(self) -> bool:
        """Return True for a TypeVar, which asks whether it is bound."""
        if sys._getframe(1).f_globals["__name__"] != "typing":
            raise NeedsTorch
        return True

    def _refuse(self, *_: Any) -> NoReturn:
        raise NeedsTorch

    __len__ = __iter__ = __lt__ = __gt__ = __le__ = __ge__ = __instancecheck__ = __subclasscheck__ = _refuse
    __enter__ = __exit__ = _refuse


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Placeholder:
        if name == "__version__":
            raise NeedsTorch
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder()


class _Finder:
    """Finds and makes stand-ins."""

    has_been_used = False

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG003
        return ModuleSpec(name, cls, is_package=True) if _is_replaced(name) else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        module = _Module(spec.name)
        module.__path__ = []  # a package
        return module

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Do nothing: it is made of nothing."""


def install() -> None:
    """Let all imports of the packages give stand-ins, unless this process has imported any of them."""
    if any(map(_is_replaced, sys.modules)):
        return
    sys.meta_path.insert(0, _Finder)
    _Finder.has_been_used = True


def remove() -> None:
    """Let later imports give the packages themselves. Modules that have stand-ins keep them."""
    if _Finder in sys.meta_path:
        sys.meta_path.remove(_Finder)
        for name in [*filter(_is_replaced, sys.modules)]:
            del sys.modules[name]


def need_torch() -> None:
    """Raise NeedsTorch where there are stand-ins: for code from outside, which may do anything as it is imported."""
    if _Finder.has_been_used:
        raise NeedsTorch


def _is_replaced(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES
