"""YAML that holds data only: no Python tags, no key twice, numbers as one types them.

PyYAML reads ``1e6`` and ``3e-4`` as texts and takes the last of two equal keys. Files that people
write by hand need neither.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from agents.errors import ConfigError

__all__ = ["check_plain", "dump_yaml", "flow_yaml", "load_yaml"]

_MAX_DEPTH = 20

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$")
# PyYAML wants a point and a signed exponent, and reads 1e6, 3e-4 and 1.0e6 as strings.
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)
_REPLACED_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp"))


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e6 as a number and takes neither a key twice nor a foreign tag."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED_TAGS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuse a key given twice; a key that overrides a merged one is not in ``node`` yet."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"'{key.value}' is given twice; delete one of the two",
                        problem_mark=key.start_mark,
                    )
                seen.add(key.value)
        return node

    def refuse_tag(self, node: yaml.Node) -> None:
        """Refuse every tag that is not plain data."""
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise yaml.MarkedYAMLError(
            problem=f"the tag '{tag}' is refused because these files hold data only; "
            "write a plain YAML value",
            problem_mark=node.start_mark,
        )


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes every text which our loader or PyYAML's would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out: nobody should have to follow anchors in a run's record."""
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Quote the rare line breaks that PyYAML writes plain and reads back as a space."""
        style = '"' if any(mark in text for mark in "\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_constructor(None, _Loader.refuse_tag)
_Dumper.add_representer(str, _Dumper.represent_text)


def load_yaml(text: str, where: str) -> Any:
    """Read one YAML document of plain data.

    :param text: the document.
    :param where: what it is, such as a file's name: the start of every message.
    :raises ConfigError: it is not YAML, has a key twice, or holds something else than data.
    """
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: {error.problem or error.context}.") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{where}: this is not YAML: {' '.join(str(error).split())}") from error
    check_plain(value, where)
    return value


def dump_yaml(value: Mapping[str, Any]) -> str:
    """Write a mapping of plain data so that :func:`load_yaml` gives it back exactly."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def flow_yaml(value: object) -> str:
    """Return a value as YAML on one line, as it stands behind a key."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def check_plain(value: object, where: str, depth: int = 0) -> None:
    """Refuse what YAML can say and JSON cannot.

    :param value: what was read.
    :param where: the start of every message.
    :param depth: how deep ``value`` is nested in what was read.
    :raises ConfigError: it holds something else than data, or is nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{where}: nested deeper than {_MAX_DEPTH} levels; write it flat.")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{where}: the key {key!r} is not a text; write '{key}'.")
            check_plain(inner, f"{where}, {key}", depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check_plain(inner, where, depth + 1)
    elif isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{where}: .nan is not a value; write a number.")
    elif not isinstance(value, str | int | float | None):
        kind = type(value).__name__
        raise ConfigError(f"{where}: a {kind} is not plain data; write a text, number or list.")
