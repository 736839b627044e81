"""Tuned settings per algorithm and task: reading them, changing them, checking them.

``hyperparams/<algo>.yml`` (or a file given by the user) maps environment ids to flat entries::

    default:                 # inherited by every entry, by itself only for an untuned run
      policy: MlpPolicy
      n_envs: 16
      normalize: true        # VecNormalize; or a mapping of its keywords, or false
    Walker2d-v4:
      source: "where the values come from"
      target_kl: 0.02        # every other key is a keyword of the algorithm's constructor
      policy_kwargs: {net_arch: {pi: [64, 64], vf: [64, 64]}, activation_fn: tanh}

``default`` < entry < overrides. A key replaces the whole value below it; a dotted override such
as ``policy_kwargs.log_std_init=-1`` changes one value inside. The files hold data only: YAML's
Python tags are refused, and classes are named from a fixed list.
"""

from __future__ import annotations

import copy
import importlib.resources
import inspect
import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import gymnasium
import yaml

from agents.errors import ConfigError, UnknownName
from agents.registry import algorithm_class
from hub import signatures
from hub.bundle_format.named_classes import NAMED_CLASSES
from hub.schedules import SCHEDULE_KEYS, build_schedule, normalize_schedule

__all__ = [
    "NORMALIZE_KEYS",
    "RUN_KEYS",
    "Hyperparameters",
    "build_agent_kwargs",
    "check_agent",
    "coerce",
    "dump_yaml",
    "flow_yaml",
    "load_yaml",
    "override_entry",
    "parse_overrides",
    "read_entries",
    "resolve_hyperparameters",
]

#: Keys of an entry that are not keywords of the algorithm, with their types.
RUN_KEYS: dict[str, Any] = {
    "source": str,
    "policy": str,
    "n_timesteps": int,
    "n_envs": int,
    "normalize": bool | dict[str, Any] | None,
    "env_kwargs": dict[str, Any] | None,
}
_RUN_DEFAULTS: dict[str, Any] = {
    "policy": "MlpPolicy",
    "n_timesteps": 1_000_000,
    "n_envs": 1,
    "normalize": False,
    "env_kwargs": None,
}
#: Keywords of VecNormalize, with their types; ``gamma`` is the agent's unless it is given.
NORMALIZE_KEYS: dict[str, Any] = {
    "norm_obs": bool,
    "norm_reward": bool,
    "clip_obs": float,
    "clip_reward": float,
    "gamma": float,
    "epsilon": float,
}
_NORMALIZE_DEFAULTS: dict[str, Any] = {
    "norm_obs": True,
    "norm_reward": True,
    "clip_obs": 10.0,
    "clip_reward": 10.0,
    "epsilon": 1e-8,
}

# Constructor arguments that the run supplies, with what to type instead of a key in a file.
_SUPPLIED = {
    "env": "Give the environment with --env.",
    "policy": "",
    "seed": "Give the seed with --seed.",
    "device": "Give the device with --device.",
    "tensorboard_log": "Give the folder with --tensorboard-log.",
    "worker_env": "Workers make the environment of --env with --env-kwargs.",
    "verbose": "Leave it out: the command line decides what is printed.",
    "_init_setup_model": "",
}
_POLICY_SUPPLIED = ("observation_space", "action_space", "lr_schedule", "use_sde")
_LOWEST = {
    "n_timesteps": 1,
    "n_envs": 1,
    "n_steps": 1,
    "n_epochs": 1,
    "n_critic_updates": 1,
    "batch_size": 2,  # one sample has no spread to normalise by
}
_FRACTIONS = ("gamma", "gae_lambda")
_MAX_DEPTH = 20


# --- YAML ---------------------------------------------------------------------------------------

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
    _check_plain(value, where)
    return value


def dump_yaml(value: Mapping[str, Any]) -> str:
    """Write a mapping of plain data so that :func:`load_yaml` gives it back exactly."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _check_plain(value: object, where: str, depth: int = 0) -> None:
    """Refuse what YAML can say and JSON cannot."""
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{where}: nested deeper than {_MAX_DEPTH} levels; write it flat.")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{where}: the key {key!r} is not a text; write '{key}'.")
            _check_plain(inner, f"{where}, {key}", depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, where, depth + 1)
    elif isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{where}: .nan is not a value; write a number.")
    elif not isinstance(value, str | int | float | None):
        kind = type(value).__name__
        raise ConfigError(f"{where}: a {kind} is not plain data; write a text, number or list.")


# --- Types --------------------------------------------------------------------------------------

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    types.NoneType: "null",
}
_EXAMPLES: dict[Any, Any] = {bool: True, int: 10, float: 0.5, list: [64, 64]}


def coerce(key: str, value: Any, annotation: Any, default: Any = None) -> Any:
    """Return ``value`` as the annotated type, where that loses nothing: 1e6 as 1000000.

    :param key: its name, for messages.
    :param value: plain YAML data.
    :param annotation: what the constructor or dataclass says; unknown ones let all pass.
    :param default: the usual value, shown as the example.
    :raises ConfigError: the value is of another type.
    """
    kinds = signatures.alternatives(annotation)
    if not kinds or Any in kinds or object in kinds:
        return value
    if value is not None and key in SCHEDULE_KEYS and signatures.takes_schedule(kinds):
        return normalize_schedule(key, value)
    for kind in kinds:
        fits, converted = _convert(key, value, kind)
        if fits:
            return converted
    literals = [
        str(name) for kind in kinds for name in get_args(kind) if signatures.is_literal(kind)
    ]
    if literals and isinstance(value, str):
        raise UnknownName(key, value, literals)
    words = [_WORDS[base] for base in map(signatures.base, kinds) if base in _WORDS]
    if default is None:
        default = next(
            (_EXAMPLES[kind] for kind in map(signatures.base, kinds) if kind in _EXAMPLES), None
        )
    example = "" if default is None else f" Write for example `{key}: {flow_yaml(default)}`."
    expected = " or ".join(words or literals)
    raise ConfigError(f"{key}: {value!r} is not {expected}.{example}")


def _convert(key: str, value: Any, kind: Any) -> tuple[bool, Any]:
    """Return whether ``value`` fits one alternative of an annotation, and the value as that."""
    base = signatures.base(kind)
    if signatures.is_literal(kind):
        return value in get_args(kind), value
    if base is int:
        whole = _is_number(value) and math.isfinite(value) and value == int(value)
        return whole, int(value) if whole else value
    if base is float:
        return _is_number(value), float(value) if _is_number(value) else value
    if base in (list, tuple) and isinstance(value, list):
        inner = (*get_args(kind), Any)[0]
        return True, [coerce(key, item, inner) for item in value]
    if base is dict and isinstance(value, dict):
        inner = (*get_args(kind), Any, Any)[1]
        return True, {name: coerce(f"{key}.{name}", item, inner) for name, item in value.items()}
    if base in (bool, str, types.NoneType):
        return isinstance(value, base), value
    return False, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def flow_yaml(value: object) -> str:
    """Return a value as YAML on one line, as it stands behind a key."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


# --- Files --------------------------------------------------------------------------------------


def read_entries(algo: str, conf_file: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Return all entries of an algorithm's file, ``default`` included, as they stand there.

    :param algo: registered name; one without a file of its own has no entries.
    :param conf_file: a file to read instead of ``hyperparams/<algo>.yml``.
    :raises ConfigError: the file cannot be read or is not a mapping of mappings.
    """
    where = _file_name(algo, conf_file)
    entries = load_yaml(_file_text(algo, conf_file), where)
    if not isinstance(entries, dict):
        raise ConfigError(f"{where}: write a mapping from environment ids to their settings.")
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise ConfigError(
                f"{where}: the entry '{name}' is {entry!r}; write `KEY: VALUE` lines under it."
            )
    return entries


def _file_name(algo: str, conf_file: str | Path | None) -> str:
    return f"hyperparams/{algo}.yml" if conf_file is None else str(conf_file)


def _file_text(algo: str, conf_file: str | Path | None) -> str:
    if conf_file is None:
        resource = importlib.resources.files("hyperparams").joinpath(f"{algo}.yml")
        return resource.read_text(encoding="utf-8") if resource.is_file() else "{}"
    path = Path(conf_file)
    if path.suffix not in (".yml", ".yaml"):
        raise ConfigError(f"'{path}' is not a .yml file; give --conf-file a YAML file.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"'{path}' cannot be read ({reason}); give --conf-file an existing YAML file."
        ) from error


def _entry(algo: str, env_id: str, conf_file: str | Path | None, untuned: bool) -> dict[str, Any]:
    """Return the entry with ``default`` merged under it and its provenance inside."""
    entries = read_entries(algo, conf_file)
    where = _file_name(algo, conf_file)
    default = entries.pop("default", {})
    if untuned:
        return {**default, "source": f"untuned: the default entry of {where}"}
    if env_id not in entries:
        raise _unlisted(algo, env_id, entries, where)
    entry = entries[env_id]
    if "source" not in entry:
        if conf_file is None:
            raise ConfigError(f"{where}: '{env_id}' has no source; add `source: \"…\"` to it.")
        entry["source"] = where
    return default | entry


def _unlisted(algo: str, env_id: str, listed: Iterable[str], where: str) -> UnknownName:
    if env_id.rpartition(":")[2] not in gymnasium.registry:
        return UnknownName("environment", env_id, listed)
    return UnknownName(
        f"{algo} entry",
        env_id,
        listed,
        advice=(
            f"Gymnasium has this environment, but there is no tuned entry for it with {algo}: "
            f"--untuned trains with the default entry of {where}, "
            "--conf-file FILE gives your own values."
        ),
    )


# --- Overrides ----------------------------------------------------------------------------------

_PAIR = re.compile(r"\s*([A-Za-z_][\w.]*)\s*[=:]\s*(.*)", re.DOTALL)


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` or RL Zoo's ``KEY:VALUE`` pairs; a key may be dotted, a value is YAML.

    :param pairs: such as ``["target_kl=0.02", "policy_kwargs.log_std_init=-1"]``.
    :return: dotted keys and plain values, the last one of equal keys.
    :raises ConfigError: a pair has no key or no value, or the value is not plain YAML.
    """
    overrides = {}
    for pair in pairs:
        match = _PAIR.fullmatch(pair)
        if match is None or not match[2] or "" in match[1].split("."):
            raise ConfigError(
                f"'{pair}' is not KEY=VALUE; write for example target_kl=0.02 "
                "or policy_kwargs.log_std_init=-1 (null for no value)."
            )
        overrides[match[1]] = load_yaml(match[2], match[1])
    return overrides


def override_entry(entry: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``entry`` in which the dotted keys have the values of ``overrides``."""
    changed = copy.deepcopy(dict(entry))
    for key, value in overrides.items():
        *parents, last = key.split(".")
        target = changed
        for parent in parents:
            inner = target.get(parent)
            if inner is None or (parent == "normalize" and inner is True):
                inner = target[parent] = {}
            if not isinstance(inner, dict):
                raise ConfigError(
                    f"'{key}' cannot be set: {parent} is {inner!r} and not a mapping. "
                    f"Give all of it, as in {parent}={{{last}: {flow_yaml(value)}}}."
                )
            target = inner
        target[last] = value
    if overrides and "source" not in overrides and "source" in changed:
        changed["source"] += f"; changed: {', '.join(sorted(overrides))}"
    return changed


# --- Checking -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hyperparameters:
    """A checked entry.

    :param source: where the values come from.
    :param policy: name of the policy.
    :param n_timesteps: how long to train.
    :param n_envs: environments side by side.
    :param normalize: all keywords of VecNormalize, or None for none.
    :param env_kwargs: keywords of the environment.
    :param agent: keywords of the algorithm's constructor as plain data, defaults included.
    """

    source: str
    policy: str
    n_timesteps: int
    n_envs: int
    normalize: dict[str, Any] | None
    env_kwargs: dict[str, Any]
    agent: dict[str, Any]


def resolve_hyperparameters(
    algo: str,
    env_id: str,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    conf_file: str | Path | None = None,
    untuned: bool = False,
) -> Hyperparameters:
    """Return the checked settings of one algorithm on one task.

    :param algo: registered name of the algorithm.
    :param env_id: Gymnasium's name of the task.
    :param overrides: ``KEY=VALUE`` texts, or dotted keys with plain values.
    :param conf_file: a file to read instead of ``hyperparams/<algo>.yml``.
    :param untuned: take the file's ``default`` entry alone, whatever the environment is.
    :raises UnknownName: no such algorithm, entry, policy or key.
    :raises ConfigError: a value cannot be used.
    """
    algorithm_class(algo)  # an unknown algorithm is the first thing to say
    entry = _entry(algo, env_id, conf_file, untuned)
    changes = dict(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    _check_plain(changes, "overrides")
    settings = _RUN_DEFAULTS | override_entry(entry, changes)
    run = {
        key: coerce(key, settings.pop(key), kind, _RUN_DEFAULTS.get(key))
        for key, kind in RUN_KEYS.items()
    }
    agent = check_agent(algo, run["policy"], settings)
    _check_ranges(run | agent)
    return Hyperparameters(
        source=run["source"],
        policy=run["policy"],
        n_timesteps=run["n_timesteps"],
        n_envs=run["n_envs"],
        normalize=_normalize(run["normalize"], agent.get("gamma", 0.99)),
        env_kwargs=run["env_kwargs"] or {},
        agent=agent,
    )


def check_agent(algo: str, policy: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all keywords of the algorithm's constructor, typed, its defaults filled in.

    The defaults are part of the record: a run must repeat itself under a later version of the
    algorithm, whose defaults may differ.

    :param algo: registered name of the algorithm.
    :param policy: the policy's name, whose keywords ``policy_kwargs`` holds.
    :param settings: the keywords that were given, as plain data.
    :raises UnknownName: no such policy, or the constructor has no such keyword.
    :raises ConfigError: a value is of another type.
    """
    algorithm = algorithm_class(algo)
    if policy not in algorithm.policy_aliases:
        raise UnknownName(f"{algo} policy", policy, algorithm.policy_aliases)
    parameters = {
        name: parameter
        for name, parameter in signatures.parameters(algorithm).items()
        if name not in _SUPPLIED and not signatures.takes_class(parameter.annotation)
    }
    for key in settings:
        if key not in parameters:
            advice = _SUPPLIED.get(key, "")
            raise UnknownName(f"{algo} setting", key, {*RUN_KEYS, *parameters}, advice)
    agent = {}
    for name, parameter in parameters.items():
        default = _plain_default(parameter)
        if name == "policy_kwargs" and settings.get(name) is not None:
            agent[name] = _check_policy_kwargs(settings[name], algorithm.policy_aliases[policy])
        elif name in settings:
            agent[name] = coerce(name, settings[name], parameter.annotation, default)
        elif default is not None or parameter.default is None:
            agent[name] = coerce(name, default, parameter.annotation)
    return agent


def _check_policy_kwargs(given: object, policy: type) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(
            f"policy_kwargs: {given!r} is not a mapping, and Python is never run. Write YAML, as "
            "in `policy_kwargs: {net_arch: {pi: [64, 64], vf: [64, 64]}, activation_fn: tanh}`."
        )
    parameters = {
        name: parameter
        for name, parameter in signatures.parameters(policy).items()
        if name not in _POLICY_SUPPLIED
        and (name in NAMED_CLASSES or not signatures.takes_class(parameter.annotation))
    }
    checked = {}
    for key, value in given.items():
        if key not in parameters:
            raise UnknownName("key of policy_kwargs", key, parameters)
        if key in NAMED_CLASSES:
            if value not in list(NAMED_CLASSES[key]):
                raise UnknownName(key, str(value), NAMED_CLASSES[key])
            checked[key] = value
        else:
            default = _plain_default(parameters[key])
            checked[key] = coerce(
                f"policy_kwargs.{key}", value, parameters[key].annotation, default
            )
    return checked


def _plain_default(parameter: inspect.Parameter) -> Any:
    """Return the parameter's default if it is plain data, else None."""
    default = parameter.default
    return default if isinstance(default, bool | int | float | str) else None


def _check_ranges(settings: Mapping[str, Any]) -> None:
    for key, lowest in _LOWEST.items():
        value = settings.get(key)
        if value is not None and value < lowest:
            raise ConfigError(f"{key}: {value} is below {lowest}; write {key}: {lowest} or more.")
    for key in _FRACTIONS:
        if settings.get(key) is not None and not 0.0 <= settings[key] <= 1.0:
            raise ConfigError(
                f"{key}: {settings[key]} is not between 0 and 1; write for example {key}: 0.99."
            )
    n_steps, n_envs = settings.get("n_steps"), settings["n_envs"]
    if n_steps is not None and n_steps * n_envs < 2:
        raise ConfigError(
            f"n_steps: {n_steps} with n_envs: {n_envs} collects one sample per update and at "
            "least 2 are needed; write for example n_steps: 64."
        )


def _normalize(given: bool | dict[str, Any] | None, gamma: float) -> dict[str, Any] | None:
    """Return all keywords of VecNormalize, in the order of ``NORMALIZE_KEYS``."""
    if given is None or given is False:
        return None
    complete = _NORMALIZE_DEFAULTS | {"gamma": gamma}
    if isinstance(given, dict):
        for key, value in given.items():
            if key not in NORMALIZE_KEYS:
                raise UnknownName("key of normalize", key, NORMALIZE_KEYS)
            name = f"normalize.{key}"
            complete[key] = coerce(name, value, NORMALIZE_KEYS[key], complete[key])
    return {key: complete[key] for key in NORMALIZE_KEYS}


def build_agent_kwargs(agent: Mapping[str, Any]) -> dict[str, Any]:
    """Return real constructor keywords: schedules as callables, named classes as classes.

    :param agent: as :attr:`Hyperparameters.agent`.
    """
    kwargs = copy.deepcopy(dict(agent))
    for key in SCHEDULE_KEYS & kwargs.keys():
        if isinstance(kwargs[key], dict):
            kwargs[key] = build_schedule(key, kwargs[key])
    policy_kwargs = kwargs.get("policy_kwargs") or {}
    for key, classes in NAMED_CLASSES.items():
        if key in policy_kwargs:
            policy_kwargs[key] = classes[policy_kwargs[key]]
    return kwargs
