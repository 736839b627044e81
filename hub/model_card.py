"""The model card: README.md of a published agent, written from its own files.

The front matter is what the Hub's reinforcement-learning pages and ``huggingface_sb3`` read:
``model-index`` with the return as ``mean_reward``, tags, library. Everything else a reader can
check: how it was evaluated, what it was trained with, and the command that trains it again.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

__all__ = [
    "TAG",
    "AgentFacts",
    "SeedResult",
    "algorithm_name",
    "algorithm_title",
    "render_card",
]

TAG = "natural-zoo"
"""Marks our agents among all others of the Hub."""
_LIBRARY = "stable-baselines3"
_RL_TAGS = ("deep-reinforcement-learning", "reinforcement-learning", _LIBRARY)
_NAMES = {
    "a2c": "A2C",
    "a3c": "A3C",
    "actor_critic": "ActorCritic",
    "npg": "NPG",
    "off_pac": "OffPAC",
    "ppo": "PPO",
    "ppo_kl": "PPO-KL",
    "reinforce": "REINFORCE",
    "trpo": "TRPO",
}
_FILES = {
    "agent.json": "what the agent is: algorithm, networks, spaces, versions, digests of the files",
    "policy.safetensors": "weights",
    "normalizer.safetensors": "statistics that observations are normalised with",
    "optimizer.safetensors": "state of the optimisers, to go on training",
    "policy.onnx": "raw observation in, action to apply out; float32",
    "policy.f64.onnx": "the same in float64: every number on this page comes from it",
    "evaluation.json": "every episode of the evaluation",
    "curve.csv": "evaluations during training",
    "config.yml": "everything needed to train it again",
    "replay.mp4": "the first episode of the evaluation",
}


@dataclass(frozen=True)
class SeedResult:
    """The final evaluation of one training run.

    :param seed: of the training.
    :param n_timesteps: environment steps trained.
    :param returns: of the evaluation's episodes.
    """

    seed: int | None
    n_timesteps: int | None
    returns: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean return."""
        return statistics.fmean(self.returns)

    @property
    def std(self) -> float:
        """Standard deviation over episodes."""
        return statistics.pstdev(self.returns)


@dataclass(frozen=True)
class AgentFacts:
    """What a card says about an agent.

    :param algo: registered name, such as ``"npg"``.
    :param env_id: Gymnasium id.
    :param n_timesteps: environment steps that it was trained for.
    :param evaluation: the content of ``evaluation.json``.
    :param config: the content of ``config.yml``.
    :param command: how it was trained, None if that is not known.
    :param versions: of the packages it was trained with.
    :param files: names of the files in the repository.
    :param siblings: runs with the same settings and other seeds, this one included.
    :param license: an SPDX name.
    """

    algo: str
    env_id: str
    n_timesteps: int | None
    evaluation: Mapping[str, Any]
    config: Mapping[str, Any]
    command: str | None
    versions: Mapping[str, str | None]
    files: Sequence[str]
    siblings: Sequence[SeedResult] = field(default_factory=tuple)
    license: str | None = None


def render_card(facts: AgentFacts, name: str) -> str:
    """Return README.md.

    :param facts: about the agent.
    :param name: what the commands are given, such as ``"ORG/npg-Walker2d-v4"``.
    """
    sections = [
        _summary(facts),
        _usage(facts, name),
        _learning_curve(facts),
        _evaluation(facts, name),
        _hyperparameters(facts),
        _reproduction(facts),
        _file_list(facts),
    ]
    return _front_matter(facts) + "\n".join(section for section in sections if section)


def algorithm_title(algo: str) -> str:
    """Return the name of an algorithm as papers write it."""
    return _NAMES.get(algo, algo.upper())


def algorithm_name(title: str) -> str:
    """Return the name in lower case of an algorithm as a card's ``model-index`` has it."""
    return {name: algo for algo, name in _NAMES.items()}.get(title, title.lower())


def _front_matter(facts: AgentFacts) -> str:
    # Imported here: most of the hub works where huggingface_hub is not installed.
    from huggingface_hub import EvalResult, ModelCardData

    result = _own_result(facts)
    task = "reinforcement-learning"
    data = ModelCardData(
        library_name=_LIBRARY,
        license=facts.license,
        tags=list(dict.fromkeys((facts.env_id, *_RL_TAGS, TAG, facts.algo))),
        model_name=algorithm_title(facts.algo),
        eval_results=[
            EvalResult(
                task_type=task,
                task_name=task,
                dataset_type=facts.env_id,
                dataset_name=facts.env_id,
                metric_type="mean_reward",
                metric_name="mean_reward",
                metric_value=f"{result.mean:.2f} +/- {result.std:.2f}",
            )
        ],
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _own_result(facts: AgentFacts) -> SeedResult:
    evaluation = facts.evaluation
    return SeedResult(
        evaluation.get("training_seed"),
        facts.n_timesteps,
        [float(r) for r in evaluation["returns"]],
    )


def _summary(facts: AgentFacts) -> str:
    result = _own_result(facts)
    kind = "deterministic" if facts.evaluation.get("deterministic", True) else "stochastic"
    steps = "" if facts.n_timesteps is None else f" after {facts.n_timesteps:,} steps"
    return (
        f"# {algorithm_title(facts.algo)} on {facts.env_id}\n\n"
        f"Return **{result.mean:.1f} ± {result.std:.1f}** over {len(result.returns)} {kind} "
        f"episodes{steps}. Trained with Natural Zoo; nothing in this repository needs to be "
        "unpickled.\n"
    )


def _usage(facts: AgentFacts, name: str) -> str:
    # What came with the installation needs no fetching.
    pull = f"python -m hub.pull {name}\n" if "/" in name else ""
    return f"""## Usage

`pip install natural-zoo`, then with Stable-Baselines3:

```python
import hub

model = hub.load("{name}")  # a Stable-Baselines3 model, with its environment
actions, _ = model.predict(model.get_env().reset(), deterministic=True)
```

Without torch, by ONNX Runtime:

```python
import gymnasium
import hub

policy, env = hub.OnnxPolicy("{name}"), gymnasium.make("{facts.env_id}")
action = policy(env.reset()[0])  # raw observation in, action to apply out
```

On the command line:

```
{pull}python -m zoo.enjoy {name}
python -m zoo.verify {name}
```
"""


def _learning_curve(facts: AgentFacts) -> str:
    if "curve.png" not in facts.files:
        return ""
    return "## Learning curve\n\n![Evaluation return over environment steps](curve.png)\n"


def _evaluation(facts: AgentFacts, name: str) -> str:
    siblings = facts.siblings or [_own_result(facts)]
    own = facts.evaluation.get("training_seed")
    lines = [
        "## Evaluation",
        "",
        "| training seed | steps | episodes | mean return | std | median | min | max |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in siblings:
        seed = "?" if result.seed is None else str(result.seed)
        is_this = len(siblings) > 1 and result.seed == own
        steps = "?" if result.n_timesteps is None else f"{result.n_timesteps:,}"
        numbers = (
            *(result.mean, result.std, statistics.median(result.returns)),
            *(min(result.returns), max(result.returns)),
        )
        cells = [f"{seed} (this agent)" if is_this else seed, steps, str(len(result.returns))]
        lines.append(f"| {' | '.join([*cells, *(f'{number:.1f}' for number in numbers)])} |")
    if len(siblings) > 1:
        means = [result.mean for result in siblings]
        lines.append(
            f"\nOver {len(means)} training seeds: {statistics.fmean(means):.1f} ± "
            f"{statistics.stdev(means):.1f} (mean and standard deviation of the means)."
        )
    seeds = facts.evaluation.get("seeds") or []
    span = f" with the reset seeds {seeds[0]} … {seeds[-1]}" if seeds else ""
    lines.append(
        f"\nWhole episodes on Gymnasium's own environment{span}, frozen statistics, rewards as the "
        "environment gives them. Every episode is in `evaluation.json`; "
        f"`python -m zoo.verify {name}` plays them again.\n"
    )
    return "\n".join(lines)


def _hyperparameters(facts: AgentFacts) -> str:
    keys = ("n_timesteps", "n_envs", "policy", "normalize", "env_kwargs", "agent")
    shown = {key: facts.config[key] for key in keys if facts.config.get(key)}
    if not shown:
        return ""
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    return f"## Hyperparameters\n\n```yaml\n{text}```\n"


def _reproduction(facts: AgentFacts) -> str:
    lines = ["## How to train it again", ""]
    if facts.command:
        lines += ["```", facts.command.strip(), "```", ""]
    versions = ", ".join(f"{name} {v}" for name, v in facts.versions.items() if v)
    if versions:
        lines.append(f"Trained with {versions}.")
    seed = facts.config.get("seed")
    if seed is not None:
        lines.append(
            f"Seed {seed}: on a CPU of the same kind and with the same versions the training "
            "repeats bit for bit."
        )
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _file_list(facts: AgentFacts) -> str:
    rows = [f"| `{name}` | {text} |" for name, text in _FILES.items() if name in facts.files]
    return "\n".join(["## Files", "", "| file | |", "|---|---|", *rows, ""]) if rows else ""
