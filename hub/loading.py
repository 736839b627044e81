"""A Stable-Baselines3 model from an agent of any origin, by one string."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agents.errors import ConfigError, NaturalZooError, RunFolderError
from hub.bundle import Bundle
from hub.fetch import fetch_agent
from hub.guests.guest_files import GuestFiles, find_guest
from hub.gym_env import check_env_package, make_gym_env
from hub.locate import hub_name, is_guest_folder, locate

if TYPE_CHECKING:
    import gymnasium
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from hub.rl_zoo import GuestAgent

__all__ = ["load", "open_guest"]

logger = logging.getLogger(__name__)


def load(
    agent: str | Path,
    *,
    env: gymnasium.Env[Any, Any] | VecEnv | Literal["auto"] | None = "auto",
    training: bool = False,
    device: str = "cpu",
    trust_pickle: bool = False,
    token: str | None = None,
) -> BaseAlgorithm:
    """Return an agent as a Stable-Baselines3 model that predicts and can go on training.

    ``model.get_env()`` is its task, and gives observations as the model was trained on them:
    normalised with the statistics that belong to the agent. An observation from elsewhere has to be
    normalised first: ``model.get_vec_normalize_env().normalize_obs(observation)``.

    :param agent: a run folder, a bundle, the name of a published agent, ``"ORG/NAME[@REV]"`` of the
        Hub, ``"folder:DIR/NAME[@REV]"``, or a folder, repository or ``.zip`` of RL Zoo,
        ``huggingface_sb3`` or Stable-Baselines3.
    :param env: to act and train in; ``"auto"`` makes the one that the agent was trained on, None
        leaves the model without.
    :param training: let the statistics go on with what the environment gives, and scale rewards as
        in training; False keeps both as they are, to act and to evaluate.
    :param device: of torch.
    :param trust_pickle: for an agent that is no bundle: unpickle, which runs whatever its author
        has put in.
    :param token: of the Hub, instead of the one that is logged in.
    :raises BundleError: it is damaged, or cannot be read without running code in it.
    :raises HubError: it cannot be had, with the reason.
    :raises NaturalZooError: there is no such agent.
    """
    bundle, guest = _find(agent, token)
    if bundle is not None:
        opened = Bundle.open(bundle)
        if isinstance(env, str):
            env = _make_env(opened.manifest.env_id, opened.manifest.env_kwargs)
        model = opened.load_model(env, device=device)
    else:
        n_envs = getattr(env, "num_envs", 1)
        model = _with_env(
            open_guest(guest, trust_pickle=trust_pickle, n_envs=n_envs, device=device), env
        )
    wrapper = model.get_vec_normalize_env()
    if wrapper is not None:
        wrapper.training = training
        wrapper.norm_reward = wrapper.norm_reward and training
    return model


def open_guest(
    path: Path,
    *,
    which: str = "final",
    trust_pickle: bool = False,
    n_envs: int | None = None,
    device: str = "cpu",
) -> GuestAgent:
    """Return an agent that RL Zoo, ``huggingface_sb3`` or SB3 itself has written.

    :param path: its folder or ``.zip``.
    :param which: ``"final"`` or ``"best"``.
    :param n_envs: environments that it will be given; None for as many as it was trained in.
    :raises BundleError: it is damaged, or cannot be read without running code in it.
    :raises RunFolderError: there is no such agent.
    """
    from hub.rl_zoo import load_guest  # torch, only where it is needed

    if path.is_file():
        files: GuestFiles | None = GuestFiles(path.name)
        path = path.parent
    else:
        names = [p.relative_to(path).as_posix() for p in path.glob("**/*") if p.is_file()]
        files = find_guest(names, which)
    if files is None:
        raise RunFolderError(
            f"'{path}' holds no {which} agent of Stable-Baselines3: no .zip in it is one."
        )
    found = load_guest(path, files, trust_pickle=trust_pickle, n_envs=n_envs, device=device)
    for note in found.notes:
        logger.warning("%s: %s", path, note)
    return found


def _find(agent: str | Path, token: str | None) -> tuple[Path | None, Path]:
    """Return the folder of a bundle, or None and the folder or file of a guest."""
    path = Path(agent)
    if path.suffix == ".zip" and path.is_file():
        return None, path
    if path.is_dir() and is_guest_folder(path):
        return None, path
    name = hub_name(agent)
    if name is not None:
        fetched = fetch_agent(name, token=token)
        return (fetched.path if fetched.kind == "bundle" else None), fetched.path
    found = locate(agent)
    if found.kind == "onnx":
        raise ConfigError(
            f"'{agent}' is an ONNX file and no model of Stable-Baselines3. "
            f'Type: hub.OnnxPolicy("{agent}")'
        )
    bundle = found.require_bundle()
    return bundle, bundle


def _make_env(env_id: str | None, env_kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any] | None:
    if env_id is None:
        return None
    try:
        check_env_package(env_id, (), "the agent")  # a stranger does not say what is imported
        return make_gym_env(env_id, env_kwargs)
    except NaturalZooError as error:
        logger.warning("The model has no environment: %s", error)
        return None


def _with_env(guest: GuestAgent, env: Any) -> BaseAlgorithm:
    from hub.vec_normalize import wrap

    model = guest.model
    if isinstance(env, str):
        env = _make_env(guest.env_id, guest.env_kwargs)
    if env is None:
        return model
    venv = model._wrap_env(env, verbose=0)
    if guest.normalizer is not None:
        venv = wrap(guest.normalizer, venv)
    try:
        model.set_env(venv)
    except (ValueError, AssertionError) as error:
        raise ConfigError(
            f"The agent was trained on {guest.env_id}, which this environment is not: "
            f"{' '.join(str(error).split())}"
        ) from error
    return model
