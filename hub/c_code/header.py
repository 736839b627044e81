"""A trained MLP policy as one C99 header without dependencies.

It computes what ``policy.f64.onnx`` computes, in double precision on the same float32 weights, with
the same rounding at the end, and gives the same actions bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor

from agents.errors import ExportError
from hub.c_code.function import PolicyFunction
from hub.c_code.source import comment, enumeration, identifier
from hub.control_names import ControlNames, Labels
from hub.normalizer import Normalizer
from hub.onnx_graph.heads import action_postprocess
from hub.policy_network import PolicyNetwork, read_policy

__all__ = ["build_c_header"]


def build_c_header(
    policy: BasePolicy,
    normalizer: Normalizer | None,
    *,
    name: str,
    control: ControlNames,
    facts: Mapping[str, str] | None = None,
) -> str:
    """Return the header's text.

    It defines ``static inline void NAME_act(const double *obs, T *actions)`` with T ``float`` for
    Box actions, ``int64_t`` for Discrete and MultiDiscrete, ``int8_t`` for MultiBinary.

    :param policy: an MLP on one vector, with activations that ``math.h`` can compute.
    :param normalizer: what its observations were normalised with, None without.
    :param name: becomes the prefix of everything in the file, such as ``npg-Walker2d-v4``.
    :param control: names and units of the observation and the action.
    :param facts: further lines for the opening comment, by their titles.
    :raises ExportError: the policy is not such an MLP, or it holds NaN.
    """
    network = read_policy(policy, normalizer)
    if network.is_dict or type(network.extractor) is not FlattenExtractor:
        kind = "a Dict observation" if network.is_dict else f"a {type(network.extractor).__name__}"
        raise ExportError(
            f"A C header is for an MLP on one vector, and this policy has {kind}; use its ONNX "
            "file with ONNX Runtime's C API."
        )
    prefix = identifier(name)
    function = PolicyFunction(prefix)
    function.read(network.inputs[0])
    for module in (*network.body, *network.output):
        function.apply(module)
    function.act(network.action_space, squashed=network.squashed)
    guard = f"{prefix.upper()}_H"
    return "".join(
        [
            comment(_description(prefix, network, control, facts or {})),
            f"#ifndef {guard}\n#define {guard}\n\n#include <math.h>\n#include <stdint.h>\n\n",
            *_sizes(prefix.upper(), network, control),
            "\n",
            enumeration(f"{prefix}_obs", _flat_labels(control.observation_names)),
            enumeration(f"{prefix}_action", control.action_names),
            "\n",
            function.text(),
            "\n#endif\n",
        ]
    )


def _description(
    prefix: str, network: PolicyNetwork, control: ControlNames, facts: Mapping[str, str]
) -> Iterator[str]:
    yield f"{prefix}_act: the action for a raw observation, {_postprocess(network)}."
    yield "Double precision inside; the same actions, bit for bit, as the agent's policy.f64.onnx."
    yield "Written by natural-zoo."
    if facts:
        yield ""
        yield from (f"{title}: {fact}" for title, fact in facts.items())
    for title, names, units in (
        ("Observation", _flat_labels(control.observation_names), control.observation_units),
        (_action_title(network), control.action_names, control.action_units),
    ):
        yield ""
        yield f"{title}:"
        known = [*_flat_labels(units), *[""] * len(names)]
        for place, (name, unit) in enumerate(zip(names, known, strict=False)):
            yield f"  {place:3} {name}{f' [{unit}]' if unit not in ('', '1') else ''}"


def _postprocess(network: PolicyNetwork) -> str:
    inside = action_postprocess(network.action_space, squashed=network.squashed).split()[0]
    scaled = network.inputs[0].scaling is not None
    return f"normalisation and {inside} inside" if scaled else f"{inside} inside"


def _action_title(network: PolicyNetwork) -> str:
    return "Choices" if isinstance(network.action_space, spaces.Discrete) else "Actions"


def _sizes(prefix: str, network: PolicyNetwork, control: ControlNames) -> Iterator[str]:
    yield f"#define {prefix}_N_OBS {prod(network.observation_space.shape or ())}\n"
    yield f"#define {prefix}_N_ACTIONS {prod(network.action_space.shape or ())}\n"
    if control.control_dt is not None:
        yield f"#define {prefix}_CONTROL_DT {control.control_dt!r} /* seconds per action */\n"


def _flat_labels(labels: Labels) -> Sequence[str]:
    return () if isinstance(labels, Mapping) else labels
