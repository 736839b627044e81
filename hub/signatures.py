"""What a constructor takes, read from its annotations: the allowlist of every data file."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

__all__ = [
    "alternatives",
    "base",
    "is_literal",
    "parameters",
    "takes_class",
    "takes_schedule",
]

_NO_ANNOTATION: tuple[Any, ...] = ()


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the constructor's parameters; ``**kwargs`` adds those of the class above."""
    found: dict[str, inspect.Parameter] = {}
    for owner in cls.__mro__:
        if "__init__" not in vars(owner) or owner is object:
            continue
        constructor = vars(owner)["__init__"]
        try:
            signature = inspect.signature(constructor, eval_str=True)
        except NameError:  # a name that only the type checker imports
            signature = inspect.signature(constructor)
        passes_on = False
        for name, parameter in list(signature.parameters.items())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                passes_on = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                found.setdefault(name, parameter)
        if not passes_on:
            break
    return found


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the parts of a union, or the annotation alone; empty if it says nothing."""
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return _NO_ANNOTATION
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for part in get_args(annotation) for kind in alternatives(part))
    return (types.NoneType if annotation is None else annotation,)


def base(kind: Any) -> Any:
    """Return the class of one alternative: ``list`` for ``list[int]`` and ``Sequence[int]``."""
    found = get_origin(kind) or kind
    return dict if found is Mapping else list if found is Sequence else found


def is_literal(kind: Any) -> bool:
    """Tell whether an alternative is a ``Literal``."""
    return get_origin(kind) is Literal


def takes_schedule(kinds: Sequence[Any]) -> bool:
    """Tell whether a function of the remaining progress is among the alternatives."""
    return any(get_origin(kind) is Callable or kind is Callable for kind in kinds)


def takes_class(annotation: Any) -> bool:
    """Tell whether a class is among the alternatives, which no data file can hold."""
    return any(base(kind) is type for kind in alternatives(annotation))
