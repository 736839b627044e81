"""The C function of a policy, written step by step: read, layers, act."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import nn

from agents.errors import ExportError
from hub.c_code.source import array, constant
from hub.onnx_graph.heads import action_bounds, action_resolution
from hub.onnx_graph.inputs import one_hot_sources
from hub.onnx_graph.layers import weights
from hub.policy_network import ObservationInput

__all__ = ["PolicyFunction"]

# The same formulas as in hub.onnx_graph.activations; names in braces are attributes of the module.
_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ELU: "x > 0.0 ? x : {alpha} * (exp(x) - 1.0)",
    nn.Hardtanh: "x < {min_val} ? {min_val} : (x > {max_val} ? {max_val} : x)",
    nn.LeakyReLU: "x > 0.0 ? x : {negative_slope} * x",
    nn.ReLU: "x > 0.0 ? x : 0.0",
    nn.ReLU6: "x < 0.0 ? 0.0 : (x > 6.0 ? 6.0 : x)",
    nn.SiLU: "x / (1.0 + exp(-x))",
    nn.Sigmoid: "1.0 / (1.0 + exp(-x))",
    nn.Tanh: "tanh(x)",
}
_IDENTITIES = (nn.Identity, nn.Dropout)

# Inputs outside: the compiler computes many outputs at once, and sums stay in the same order.
_LAYER = """\
static inline void {prefix}_layer(const float *weight, const float *bias, int n_in, int n_out,
                                  const double *in, double *out)
{{
    int i, j;
    for (j = 0; j < n_out; j++) out[j] = 0.0;
    for (i = 0; i < n_in; i++)
        for (j = 0; j < n_out; j++) out[j] += in[i] * (double)weight[i * n_out + j];
    for (j = 0; j < n_out; j++) out[j] += (double)bias[j];
}}
"""


class PolicyFunction:
    """``PREFIX_act`` and what it needs. Values wander between two buffers.

    :param prefix: of every name in the file.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._definitions: dict[str, str] = {}
        self._statements: list[str] = []
        self._value, self._other = "x", "y"
        self._size = self._largest = 0
        self._action_type = ""

    def text(self) -> str:
        """Return the definitions and the function."""
        buffers = f"double x[{self._largest}], y[{self._largest}];"
        lines = [buffers, "int i;", "(void)y;", *self._statements]
        return "".join(
            [
                *(f"{definition}\n" for definition in self._definitions.values()),
                f"static inline void {self._prefix}_act(const double *obs, ",
                f"{self._action_type} *actions)\n{{\n",
                *(f"    {line}\n" for line in lines),
                "}\n",
            ]
        )

    def read(self, observation: ObservationInput) -> None:
        """Prepare the observation: one-hot, or normalised and clipped."""
        space, scaling = observation.space, observation.scaling
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            column, choice = one_hot_sources(space)
            columns, choices = (
                self._array(name, values, "int")
                for name, values in (("column", column), ("choice", choice))
            )
            self._resize(len(choice))
            self._each(f"x[i] = obs[{columns}[i]] == (double){choices}[i] ? 1.0 : 0.0;")
            return
        self._resize(prod(space.shape or ()))
        self._each("x[i] = obs[i];")
        if scaling is not None:
            mean = self._array("mean", scaling.mean, "double")
            std = self._array("std", scaling.std, "double")
            clip = constant(scaling.clip)
            self._each(f"x[i] = (x[i] - {mean}[i]) / {std}[i];")
            self._each(f"x[i] = x[i] < -{clip} ? -{clip} : (x[i] > {clip} ? {clip} : x[i]);")
        if observation.is_image:
            self._each("x[i] = x[i] / 255.0;")

    def apply(self, module: nn.Module) -> None:
        """Add a layer.

        :raises ExportError: the module is of no kind that is known here.
        """
        if type(module) is nn.Sequential:
            for part in module:
                self.apply(part)
        elif type(module) is nn.Linear:
            self._linear(module)
        elif type(module) in _ACTIVATIONS:
            self._activation(module)
        elif type(module) not in _IDENTITIES:
            known = ", ".join(sorted(kind.__name__ for kind in _ACTIVATIONS))
            raise ExportError(
                f"A C header cannot hold the layer {type(module).__name__}; it knows Linear, "
                f"{known}. Use the ONNX file with ONNX Runtime's C API."
            )

    def act(self, space: spaces.Space[Any], *, squashed: bool) -> None:
        """Turn the last layer's output into the action."""
        value = self._value
        if isinstance(space, spaces.Box):
            self._box(space, squashed=squashed)
        elif isinstance(space, spaces.MultiBinary):
            self._action_type = "int8_t"
            self._each(f"actions[i] = {value}[i] > 0.0 ? 1 : 0;")
        else:
            self._action_type = "int64_t"
            counts = np.ravel(getattr(space, "nvec", getattr(space, "n", 0)))
            start = 0
            for place, count in enumerate(counts.tolist()):
                best = f"actions[{place}]"
                self._statements += [
                    f"{best} = 0;",
                    f"for (i = 1; i < {count}; i++)",
                    f"    if ({value}[{start} + i] > {value}[{start} + {best}]) {best} = i;",
                ]
                start += count

    def _box(self, space: spaces.Box, *, squashed: bool) -> None:
        self._action_type = "float"
        low, high = action_bounds(space)
        bottom, top = (
            f"(double){self._array(name, bounds, 'float')}[i]"
            for name, bounds in (("low", low), ("high", high))
        )
        step = f"{self._array('resolution', action_resolution(space), 'double')}[i]"
        value = f"{self._value}[i]"
        if squashed:
            self._each(f"{value} = 0.5 * (tanh({value}) + 1.0);")
            self._each(f"{value} = {value} * ({top} - {bottom}) + {bottom};")
        self._each(f"{value} = rint({value} / {step}) * {step};")
        self._each(f"{value} = {value} < {bottom} ? {bottom} : {value};")
        self._each(f"{value} = {value} > {top} ? {top} : {value};")
        self._each(f"actions[i] = (float){value};")

    def _linear(self, layer: nn.Linear) -> None:
        if "layer" not in self._definitions:
            self._definitions["layer"] = _LAYER.format(prefix=self._prefix)
        parameters: dict[str, torch.Tensor] = dict(layer.named_parameters())
        number = sum(name.startswith("weight") for name in self._definitions)
        bias = weights(parameters["bias"]) if "bias" in parameters else np.zeros(layer.out_features)
        names = [
            self._array(f"weight{number}", weights(layer.weight).T, "float"),
            self._array(f"bias{number}", bias, "float"),
        ]
        sizes = f"{layer.in_features}, {layer.out_features}"
        self._statements.append(
            f"{self._prefix}_layer({', '.join(names)}, {sizes}, {self._value}, {self._other});"
        )
        self._value, self._other = self._other, self._value
        self._resize(layer.out_features)

    def _activation(self, module: nn.Module) -> None:
        constants = {
            name: constant(float(value))
            for name, value in vars(module).items()
            if isinstance(value, int | float) and not name.startswith("_")
        }
        formula = _ACTIVATIONS[type(module)].format(**constants)
        known = [text for text in self._definitions.values() if f"return {formula};" in text]
        if not known:
            name = f"{self._prefix}_{type(module).__name__.lower()}{len(self._definitions)}"
            definition = f"static inline double {name}(double x) {{ return {formula}; }}\n"
            self._definitions[name] = definition
            known = [definition]
        function = known[0].split("(")[0].split()[-1]
        self._each(f"{self._value}[i] = {function}({self._value}[i]);")

    def _each(self, statement: str) -> None:
        self._statements.append(f"for (i = 0; i < {self._size}; i++) {statement}")

    def _resize(self, size: int) -> None:
        self._size, self._largest = size, max(size, self._largest)

    def _array(self, name: str, values: npt.NDArray[Any], kind: str) -> str:
        if np.isnan(values).any():
            raise ExportError("The policy holds NaN; it cannot act, and is not exported.")
        self._definitions[name] = array(f"{self._prefix}_{name}", values, kind)
        return f"{self._prefix}_{name}"
