"""What a pickle says, without doing it.

A pickle is a program for a small stack machine, some of whose instructions import names and call
them. :func:`read_pickle` runs that machine with those instructions writing down instead: a name
becomes a :class:`Symbol`, a call a :class:`Built` that holds its arguments. No name is looked up,
nothing is imported, called or constructed, whatever the file says. The caller then looks for what
it knows, by exact names, in the tree that comes back.

Nothing of the module :mod:`pickle` is used; :mod:`pickletools` splits the bytes into instructions.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agents.errors import BundleError

__all__ = ["Built", "Symbol", "read_pickle"]

MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name that would be imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Built:
    """An object that would be made by a call.

    :param maker: what would be called, a :class:`Symbol` in any honest file.
    :param arguments: of that call.
    :param state: what the object would be given after it was made; None for nothing.
    :param items: what would be appended to it or added to it.
    :param pairs: the keys and values that would be set in it.
    """

    maker: Any
    arguments: tuple[Any, ...]
    state: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)


def read_pickle(content: bytes, where: str) -> Any:
    """Return the tree that a pickle describes.

    :param content: the pickle, up to 64 MiB.
    :param where: its name, for messages.
    :return: numbers, texts, bytes, None, lists, tuples, dicts and sets, with :class:`Symbol` and
        :class:`Built` for what is not one of these. Parts may be shared and may contain
        themselves.
    :raises BundleError: it is no pickle, truncated, or uses an instruction that no library here
        writes.
    """
    if len(content) > MAX_BYTES:
        raise BundleError(f"{where} has {len(content)} bytes; at most {MAX_BYTES} are read.")
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(content):
            if machine.step(operation.name, argument):
                return machine.stack[-1]
    except BundleError as error:
        raise BundleError(f"{where} {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise BundleError(f"{where} is damaged: it is no whole pickle ({error}).") from error
    raise BundleError(f"{where} is damaged: it ends too early.")


_MARK = object()
_CONSTANTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_IGNORED = {"PROTO", "FRAME"}


class _Machine:
    """The stack and the memo of one pickle; an instruction is a method or a few lines below."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> bool:
        """Carry out one instruction; returns whether it was the last."""
        if name == "STOP":
            return True
        if name in _CONSTANTS:
            self.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
        elif name in _SIMPLE:
            self.stack.append(_SIMPLE[name]())
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        elif name not in _IGNORED:
            raise BundleError(f"uses the instruction {name}, which is not read.")
        return False

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count:
            raise ValueError("the stack is too short")
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Built):
            target.items.extend(items)
        elif isinstance(target, set):
            target.update(map(_hashable, items))
        else:
            _checked(target, list).extend(items)

    def set_pairs(self, items: list[Any]) -> None:
        target = self.stack[-1]
        pairs = list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, Built):
            target.pairs.extend(pairs)
        else:
            _checked(target, dict).update({_hashable(key): value for key, value in pairs})

    def memoize(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def build(self) -> None:
        state = self.stack.pop()
        _checked(self.stack[-1], Built).state = state

    def call(self, arguments: Any) -> None:
        """Write down a call of what is on top of the stack."""
        self.stack.append(Built(self.stack.pop(), tuple(_checked(arguments, tuple))))

    def call_with_keywords(self) -> None:
        keywords = _checked(self.stack.pop(), dict)
        arguments = self.stack.pop()
        self.call((*_checked(arguments, tuple), keywords))

    def import_name(self, module: Any, name: Any) -> None:
        self.stack.append(Symbol(_checked(module, str), _checked(name, str)))

    def import_from_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.import_name(module, name)

    def append_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set_pairs(items)


def _hashable(value: Any) -> Any:
    """Refuse what Python would hash by descending into it, as deep as a file can nest it."""
    if isinstance(value, tuple | frozenset):
        raise BundleError("has a tuple or a set as a key, which is not read.")
    return value


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected")
    return value


_SIMPLE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.pop_to_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "LIST": lambda m, _: m.stack.append(m.pop_to_mark()),
    "DICT": lambda m, _: m.append_dict(m.pop_to_mark()),
    "FROZENSET": lambda m, _: m.stack.append(frozenset(map(_hashable, m.pop_to_mark()))),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.pop_to_mark()),
    "ADDITEMS": lambda m, _: m.extend(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_pairs([m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_pairs(m.pop_to_mark()),
    "PUT": lambda m, index: m.memoize(index),
    "BINPUT": lambda m, index: m.memoize(index),
    "LONG_BINPUT": lambda m, index: m.memoize(index),
    "MEMOIZE": lambda m, _: m.memoize(len(m.memo)),
    "GET": lambda m, index: m.stack.append(m.memo[index]),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "GLOBAL": lambda m, text: m.import_name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.import_from_stack(),
    "REDUCE": lambda m, _: m.call(m.stack.pop()),
    "NEWOBJ": lambda m, _: m.call(m.stack.pop()),
    "NEWOBJ_EX": lambda m, _: m.call_with_keywords(),
    "BUILD": lambda m, _: m.build(),
}
