"""Pieces of C99 source: identifiers, comments, exact constants."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["array", "comment", "constant", "enumeration", "identifier"]

_N_PER_LINE = 6


def identifier(text: str) -> str:
    """Return ``text`` as a lower-case C identifier: ``npg-Walker2d-v4`` → ``npg_walker2d_v4``.

    The sign of a number is kept as a word: ``torque_-1`` → ``torque_minus_1``.
    """
    text = re.sub(r"_-(?=\d)", "_minus_", text)
    text = re.sub(r"_\+(?=\d)", "_plus_", text)
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").lower()
    return name if name[:1].isalpha() else f"policy_{name}".rstrip("_")


def comment(lines: Iterable[str]) -> str:
    """Return a block comment that nothing in ``lines`` can end or leave."""
    safe = (
        re.sub(r"[^ -~\u00a0-\u2027\u2030-\uffff]|\\|\?\?", " ", line).replace("*/", "* /")
        for line in lines
    )
    return "/*\n" + "".join(f" * {line}".rstrip() + "\n" for line in safe) + " */\n"


def constant(value: float, kind: str = "double") -> str:
    """Return a number as C reads it back: hexadecimal, without a bit lost.

    :param kind: ``"float"`` or ``"double"``.
    """
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    mantissa, exponent = float(value).hex().split("p")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}p{exponent}{'f' if kind == 'float' else ''}"


def array(name: str, values: npt.NDArray[Any], kind: str) -> str:
    """Return the definition of a constant array.

    :param kind: ``"float"``, ``"double"`` or ``"int"``.
    """
    flat = np.ravel(values).tolist()
    texts = [str(value) if kind == "int" else constant(value, kind) for value in flat]
    lines = [
        "    " + ", ".join(texts[start : start + _N_PER_LINE])
        for start in range(0, len(texts), _N_PER_LINE)
    ]
    return f"static const {kind} {name}[{len(texts)}] = {{\n" + ",\n".join(lines) + "\n};\n"


def enumeration(prefix: str, names: Sequence[str]) -> str:
    """Return an enum of places, ``PREFIX_A = 0, PREFIX_B = 1, …``.

    Empty if there are no names, or if two become the same identifier.
    """
    labels = [f"{prefix}_{identifier(name)}".upper() for name in names]
    if not labels or len(set(labels)) < len(labels):
        return ""
    entries = ",\n".join(f"    {label} = {place}" for place, label in enumerate(labels))
    return f"enum {{\n{entries}\n}};\n"
