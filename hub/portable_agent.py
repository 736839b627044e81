"""A bundle's agent in the forms that act without torch: ONNX files and a C header."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy

from agents.errors import ConfigError, ExportError, MissingDependency
from hub.bundle import Bundle
from hub.bundle_format import strict_json
from hub.bundle_format.manifest import Manifest
from hub.c_code.header import build_c_header
from hub.control_names import ControlNames, describe_control, unnamed_control
from hub.gym_env import make_gym_env
from hub.normalizer import Normalizer
from hub.onnx_export import build_policy_onnx, onnx_bytes
from hub.onnx_graph.metadata import agent_metadata
from hub.policy_network import PolicyNetwork, read_policy

if TYPE_CHECKING:
    from hub.onnx_graph.graph import FloatType

__all__ = ["ONNX_FILES", "PortableAgent", "evaluation_summary"]

ONNX_FILES = ("policy.onnx", "policy.f64.onnx")
"""What a bundle holds of them."""
_EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class PortableAgent:
    """What the files of one agent are made from."""

    name: str
    """Algorithm and task, such as ``npg-Walker2d-v4``."""
    policy: BasePolicy
    normalizer: Normalizer | None
    transposed_images: Sequence[str]
    """Images that the environment gives with their channels last."""
    control: ControlNames
    metadata: Mapping[str, str]

    @classmethod
    def of_bundle(
        cls,
        bundle: Bundle,
        *,
        env: gym.Env[Any, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        license: str | None = None,
    ) -> PortableAgent:
        """Load a bundle's agent and look at its environment.

        :param env: the agent's task, which is reset and stepped; made by the bundle's id if it is
            not given. Where that cannot be made here, numbers have no names.
        :param evaluation: what the files say about returns; that of the bundle's
            ``evaluation.json`` if it is not given.
        :param license: of the agent, an SPDX name.
        :raises BundleError: the bundle is damaged.
        :raises ExportError: the policy cannot be exported at all.
        """
        manifest = bundle.manifest
        policy = bundle.load_policy(device="cpu")
        network = read_policy(policy, bundle.normalizer, manifest.transposed_images)
        control = _control(manifest, env, network)
        if evaluation is None and _EVALUATION in bundle.files:
            evaluation = evaluation_summary(
                strict_json.parse(bundle.read(_EVALUATION), str(bundle.path / _EVALUATION))
            )
        metadata = agent_metadata(
            algo=manifest.algorithm,
            env_id=manifest.env_id,
            env_kwargs=manifest.env_kwargs,
            control=control,
            versions=manifest.versions,
            evaluation=evaluation,
            license=license,
        )
        name = re.sub(r"[^\w.-]", "-", f"{manifest.algorithm}-{manifest.env_id}")
        transposed = manifest.transposed_images
        return cls(name, policy, bundle.normalizer, transposed, control, metadata)

    def onnx(self, dtype: FloatType = "float32", outputs: Sequence[str] = ("actions",)) -> bytes:
        """Return an ONNX file.

        :param outputs: see :func:`hub.onnx_export.build_policy_onnx`.
        :raises ExportError: it cannot hold this policy.
        """
        model = build_policy_onnx(
            self.policy,
            self.normalizer,
            transposed_images=self.transposed_images,
            dtype=dtype,
            metadata=self.metadata,
            outputs=outputs,
        )
        return onnx_bytes(model)

    def onnx_files(self) -> tuple[dict[str, bytes], dict[str, str]]:
        """Return the files of :data:`ONNX_FILES`, and the reason why one cannot be made.

        :raises ExportError: not even the float32 file can be made.
        """
        files, reasons = {"policy.onnx": self.onnx()}, {}
        try:
            files["policy.f64.onnx"] = self.onnx("float64")
        except ExportError as error:
            reasons["policy.f64.onnx"] = str(error)
        return files, reasons

    def c_header(self) -> str:
        """Return a C header.

        :raises ExportError: the policy is not an MLP on one vector.
        """
        if self.transposed_images:
            raise ExportError(
                "A C header is for an MLP on one vector, and this policy has an image; use its "
                "ONNX file with ONNX Runtime's C API."
            )
        facts = {"Algorithm": self.metadata["algo"], "Task": self.metadata["env_id"]}
        if "evaluation" in self.metadata:
            facts["Evaluation"] = self.metadata["evaluation"]
        if "license" in self.metadata:
            facts["Licence"] = self.metadata["license"]
        return build_c_header(
            self.policy, self.normalizer, name=self.name, control=self.control, facts=facts
        )


def evaluation_summary(report: object) -> dict[str, Any] | None:
    """Return the numbers of an ``evaluation.json`` that tell a user what to expect.

    :return: ``mean_return``, ``std_return``, ``num_timesteps`` of training and ``n_episodes``, as
        far as the report has them; None if it has no returns.
    """
    returns = report.get("returns") if isinstance(report, dict) else None
    if not isinstance(report, dict) or not isinstance(returns, list) or not returns:
        return None
    numbers = {key: report.get(key) for key in ("mean_return", "std_return", "num_timesteps")}
    known = {
        key: value
        for key, value in numbers.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return {**known, "n_episodes": len(returns)}


def _control(
    manifest: Manifest, env: gym.Env[Any, Any] | None, network: PolicyNetwork
) -> ControlNames:
    """Return the names of a task; numbers if it cannot be made here, or is another one here."""
    if env is not None:
        return _names(env, network)
    try:
        made = make_gym_env(manifest.env_id, manifest.env_kwargs)
    except (ConfigError, MissingDependency):
        return unnamed_control(network.observation_space, network.action_space)
    try:
        return _names(made, network)
    finally:
        made.close()


def _names(env: gym.Env[Any, Any], network: PolicyNetwork) -> ControlNames:
    fits = _same_shape(env.observation_space, network.observation_space) and _same_shape(
        env.action_space, network.action_space
    )
    if fits:
        return describe_control(env)
    return unnamed_control(network.observation_space, network.action_space)


def _same_shape(one: spaces.Space[Any], two: spaces.Space[Any]) -> bool:
    if isinstance(one, spaces.Dict) and isinstance(two, spaces.Dict):
        return one.spaces.keys() == two.spaces.keys() and all(
            _same_shape(part, two.spaces[key]) for key, part in one.spaces.items()
        )
    return type(one) is type(two) and one.shape == two.shape
