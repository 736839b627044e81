"""The bundle of a run: its final agent as it is published."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import unwrap_vec_normalize

from agents.errors import BundleError, ExportError
from hub.bundle import Bundle, save_bundle
from hub.gym_env import make_gym_env
from hub.leak_check import shareable_command
from hub.vec_normalize import normalizer_of
from zoo.config import RunConfig
from zoo.evaluation import report_json
from zoo.periodic_evaluations import load_evaluations
from zoo.published_evaluation import FLOAT64
from zoo.runs import RunFolder
from zoo.segments import training_env

__all__ = ["RunBundle", "complete_run_bundle", "write_run_bundle"]


@dataclass(frozen=True)
class RunBundle:
    """What came of an attempt to write a bundle."""

    bundle: Bundle | None
    """None if the agent holds what a bundle cannot."""
    problem: str | None = None
    """Why something is missing; None if all is there."""

    @property
    def has_float64(self) -> bool:
        """Whether published returns can come from its float64 file."""
        return self.bundle is not None and FLOAT64 in self.bundle.files


def write_run_bundle(model: BaseAlgorithm, config: RunConfig, run: RunFolder) -> RunBundle:
    """Write ``RUN/bundle`` with everything but the evaluation, replacing an older one.

    An agent that cannot be written so has been trained all the same: the result says why.
    """
    wrapper = unwrap_vec_normalize(training_env(model))
    try:
        bundle = save_bundle(
            run.bundle,
            model,
            algo=config.algo,
            env_id=_name(config.env_id),
            env_kwargs=config.env_kwargs,
            normalizer=None if wrapper is None else normalizer_of(wrapper),
            config_yml=run.config.read_text(encoding="utf-8"),
            command=shareable_command(run.command.read_text(encoding="utf-8")) + "\n",
            extra_files=_curve(run, model.num_timesteps),
        )
    except BundleError as error:
        return RunBundle(None, f"it has no bundle: {error}")
    return _with_onnx(bundle, config)


def complete_run_bundle(
    written: RunBundle, config: RunConfig, report: Mapping[str, Any]
) -> Bundle | None:
    """Add the final evaluation: ``evaluation.json``, a summary in the ONNX files, and the card.

    :param written: from :func:`write_run_bundle`.
    :param report: the content of ``evaluation.json``.
    """
    if written.bundle is None:
        return None
    text = report_json({**report, "env_id": _name(config.env_id)})
    bundle = written.bundle.with_files(
        {"evaluation.json": text.encode(), "README.md": _card(config, report).encode()}
    )
    return _with_onnx(bundle, config).bundle


def _name(env_id: str) -> str:
    """Return the id without the module that registers it: a bundle never says what to import."""
    return env_id.rpartition(":")[2]


def _with_onnx(bundle: Bundle, config: RunConfig) -> RunBundle:
    # Imported here: training must not wait for `onnx`.
    from hub.portable_agent import PortableAgent

    env = make_gym_env(config.env_id, config.env_kwargs)
    try:
        files, reasons = PortableAgent.of_bundle(bundle, env=env).onnx_files()
    except ExportError as error:
        return RunBundle(bundle, f"its bundle has no ONNX files: {error}")
    finally:
        env.close()
    problems = [f"its bundle has no {name}: {reason}" for name, reason in reasons.items()]
    return RunBundle(bundle.with_files(files), " ".join(problems) or None)


def _curve(run: RunFolder, n_timesteps: int) -> dict[str, bytes]:
    """Return the evaluations of training as ``curve.csv``, nothing if there were none."""
    evaluations = load_evaluations(run, n_timesteps)
    if not evaluations:
        return {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["timesteps", "mean_return", "std_return", "mean_length", "n_episodes"])
    for timesteps, evaluation in evaluations.items():
        n = len(evaluation.returns)
        mean_length = sum(evaluation.lengths) / n
        numbers = (evaluation.mean_return, evaluation.std_return, mean_length)
        writer.writerow([timesteps, *map(repr, map(float, numbers)), n])
    return {"curve.csv": text.getvalue().encode()}


def _card(config: RunConfig, report: Mapping[str, Any]) -> str:
    """Return a short README: what this is, what it reaches, how to use and check it."""
    file = "policy.onnx" if report["played_with"] == FLOAT64 else None
    lines = [
        f"# {config.algo} on {_name(config.env_id)}",
        "",
        f"Return {report['mean_return']:.1f} ± {report['std_return']:.1f} over "
        f"{len(report['returns'])} deterministic episodes after {report['num_timesteps']:,} steps, "
        f"training seed {config.seed}.",
        f"They were played with {report['played_with']}; each is in `evaluation.json`.",
        "",
        "In this folder:",
        "",
        "```",
        "python -m zoo.evaluate .    # score it",
        "python -m zoo.enjoy .       # watch it",
        "python -m zoo.verify .      # repeat evaluation.json, episode by episode",
        "```",
        "",
        "`command.txt` is what was typed to train it, `config.yml` what that came to.",
    ]
    if file is not None:
        lines += [
            "",
            "Without torch, raw observation in, action to apply out:",
            "",
            "```python",
            "from hub.runtime import OnnxPolicy",
            "",
            f'action = OnnxPolicy("{file}")(observation)',
            "```",
        ]
    return "\n".join(lines) + "\n"
