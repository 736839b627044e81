"""Everything that a push sends: a whole bundle with evaluation, ONNX, curve, video and card.

The bundle that is given is left as it is; what it lacks is made in a copy. Commands of the
application evaluate and film: each in a process of its own, because the library that draws has to
be chosen before MuJoCo is imported.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess  # commands of this project, with arguments as a list
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from agents.errors import BundleError, HubError, MissingDependency
from hub.agent_name import default_name
from hub.bundle import Bundle
from hub.bundle_format import strict_json
from hub.bundle_format.bundle_folder import AGENT, CARD
from hub.command_line import say
from hub.curve_picture import draw_curve, read_curve
from hub.leak_check import check_leaks, shareable_command
from hub.locate import settings_folders
from hub.model_card import AgentFacts, SeedResult, algorithm_title, render_card

__all__ = ["OWNED_PATTERNS", "Publication", "Wishes", "prepare_publication"]

CURVE_PICTURE = "curve.png"
OWNED_PATTERNS = (
    *(AGENT, CARD, "*.safetensors", "policy*.onnx", "evaluation.json", "curve.csv", "config.yml"),
    *(CURVE_PICTURE, "command.txt", "replay.mp4", "args.yml", "env_kwargs.yml", "results.json"),
    *("train_eval_metrics.zip", "vec_normalize.pkl", "*-*.zip"),
)
"""What an earlier push may have left in a repository."""


@dataclass(frozen=True)
class Wishes:
    """What whoever pushes asks for.

    :param video: record the first episode of the evaluation.
    :param preview: only its first seconds, in a quarter of a megabyte.
    :param rl_zoo: also write the files that RL Zoo reads.
    :param license: of the agent, an SPDX name.
    :param episodes: of the evaluation, if the bundle has none yet.
    :param packages: modules to import that register environments.
    """

    video: bool = False
    preview: bool = False
    rl_zoo: bool = False
    license: str | None = None
    episodes: int = 100
    packages: Sequence[str] = ()


@dataclass(frozen=True)
class Publication:
    """The files of a push.

    :param name: of the repository if none was given, such as ``npg-Walker2d-v4``.
    :param message: of the commit.
    :param files: content by name.
    """

    name: str
    message: str
    files: Mapping[str, bytes]


def prepare_publication(
    bundle: Path, wishes: Wishes, *, run: Path | None = None, address: str = "ORG/{name}"
) -> Publication:
    """Return what is to be uploaded.

    :param bundle: folder of the bundle.
    :param run: the run folder that it belongs to, for the metrics of training and other seeds.
    :param address: what the card tells its readers to type; ``{name}`` stands for the name.
    :raises BundleError: the bundle is damaged or cannot be completed.
    :raises HubError: something in it would tell about this machine.
    """
    with _copy(bundle) as copy:
        copy = _without_paths(copy)
        copy = _with_evaluation(copy, wishes)
        if wishes.video:
            copy = _with_video(copy, wishes)
        manifest = copy.manifest
        name = default_name(manifest.algorithm, manifest.env_id)
        evaluation = _json(copy, "evaluation.json")
        picture = _picture(copy)
        if picture is not None:
            copy = copy.with_files({CURVE_PICTURE: picture})
        files = {file: copy.read(file) for file in copy.files}
        files[AGENT] = (copy.path / AGENT).read_bytes()
        if wishes.rl_zoo:
            files |= _rl_zoo_files(copy, evaluation, run)
        facts = _facts(copy, evaluation, files, run, wishes)
        files[CARD] = render_card(facts, address.format(name=name)).encode()
    check_leaks(files)
    mean, std = statistics.fmean(evaluation["returns"]), statistics.pstdev(evaluation["returns"])
    title = f"{algorithm_title(manifest.algorithm)} on {manifest.env_id}"
    return Publication(name, f"Push {title}: return {mean:.1f} ± {std:.1f}", files)


@contextmanager
def _copy(bundle: Path) -> Iterator[Bundle]:
    """Open a copy of a bundle, under its own name: messages show the name."""
    original = Bundle.open(bundle)
    with tempfile.TemporaryDirectory(prefix="natural-zoo-push-") as folder:
        copy = Path(folder) / (bundle.resolve().name or "bundle")
        copy.mkdir()
        for name in (AGENT, *original.files):
            shutil.copyfile(bundle / name, copy / name)
        yield Bundle.open(copy)


def _without_paths(bundle: Bundle) -> Bundle:
    """Leave out of the command line where its user keeps things."""
    if "command.txt" not in bundle.files:
        return bundle
    command = bundle.read("command.txt").decode()
    shared = shareable_command(command) + "\n"
    return bundle if shared == command else bundle.with_files({"command.txt": shared.encode()})


def _with_evaluation(bundle: Bundle, wishes: Wishes) -> Bundle:
    """Evaluate where that has not been done, and tell the ONNX files."""
    if "policy.onnx" not in bundle.files:
        say("writing the ONNX files …")
        bundle = bundle.with_files(_onnx_files(bundle, wishes))
    if "evaluation.json" in bundle.files:
        return bundle
    say(f"evaluating {wishes.episodes} episodes …")
    report = bundle.path.with_name("evaluation.json")
    options = ["--episodes", str(wishes.episodes), "-o", str(report), "--json", "-P"]
    _command("zoo.evaluate", str(bundle.path), options, wishes)
    bundle = bundle.with_files({"evaluation.json": report})
    return bundle.with_files(_onnx_files(bundle, wishes))


def _with_video(bundle: Bundle, wishes: Wishes) -> Bundle:
    if "replay.mp4" in bundle.files:
        return bundle
    say("recording the first episode …")
    video = bundle.path.with_name("replay.mp4")
    options = ["-o", str(video), "-P", *(["--preview"] if wishes.preview else [])]
    _command("zoo.record", str(bundle.path), options, wishes)
    return bundle.with_files({"replay.mp4": video})


def _command(module: str, agent: str, options: Sequence[str], wishes: Wishes) -> None:
    """Run a command of the application.

    :raises HubError: it fails; its own message is passed on.
    """
    packages = ["--gym-packages", *wishes.packages] if wishes.packages else []
    done = subprocess.run(  # noqa: S603 - this Python and a module of this project
        [sys.executable, "-m", module, agent, *options, *packages],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        raise HubError(f"{module} has failed: {lines[-1].removeprefix('error: ')}")


def _onnx_files(bundle: Bundle, wishes: Wishes) -> dict[str, bytes]:
    from hub.portable_agent import PortableAgent  # torch and onnx, only where they are needed

    agent = PortableAgent.of_bundle(bundle, license=wishes.license)
    files, reasons = agent.onnx_files()
    for name, reason in reasons.items():
        say(f"left out: {name}: {reason}")
    return files


def _picture(bundle: Bundle) -> bytes | None:
    """Return the learning curve; None if there is none to draw, or nothing to draw with."""
    if "curve.csv" not in bundle.files:
        return None
    curve = read_curve(bundle.read("curve.csv").decode())
    if not curve.steps:
        return None
    manifest = bundle.manifest
    try:
        return draw_curve(curve, f"{algorithm_title(manifest.algorithm)} on {manifest.env_id}")
    except MissingDependency as error:
        say(f"left out: {error}")
        return None


def _rl_zoo_files(
    bundle: Bundle, evaluation: Mapping[str, Any], run: Path | None
) -> dict[str, bytes]:
    from hub.guests.rl_zoo_export import rl_zoo_files  # torch, only where it is needed

    manifest = bundle.manifest
    files = rl_zoo_files(
        bundle.load_model(device="cpu"),
        bundle.normalizer,
        algo=manifest.algorithm,
        env_id=manifest.env_id,
        env_kwargs=manifest.env_kwargs,
        evaluation=evaluation,
        run=run,
        seed=evaluation.get("training_seed"),
    )
    is_normalized = bundle.normalizer is not None
    if "config.yml" not in bundle.files:
        settings = {"policy": manifest.policy, "normalize": is_normalized}
        files["config.yml"] = yaml.safe_dump(settings).encode()
    elif bool(_yaml(bundle.read("config.yml"), "config.yml").get("normalize")) != is_normalized:
        raise BundleError(
            f"config.yml and the agent disagree on 'normalize' (the agent: {is_normalized}), and "
            "RL Zoo believes config.yml. Leave --rl-zoo out, or correct the bundle."
        )
    return files


def _facts(
    bundle: Bundle,
    evaluation: Mapping[str, Any],
    files: Mapping[str, bytes],
    run: Path | None,
    wishes: Wishes,
) -> AgentFacts:
    manifest = bundle.manifest
    has_config = "config.yml" in bundle.files  # not the one that is written for RL Zoo only
    config = _yaml(bundle.read("config.yml"), "config.yml") if has_config else {}
    facts = AgentFacts(
        algo=manifest.algorithm,
        env_id=manifest.env_id,
        n_timesteps=manifest.counters.get("num_timesteps"),
        evaluation=evaluation,
        config=config,
        command=files["command.txt"].decode() if "command.txt" in files else None,
        versions=manifest.versions,
        files=[*files, CARD],
        license=wishes.license,
    )
    return replace(facts, siblings=_siblings(run, facts) if run is not None else ())


def _siblings(run: Path, facts: AgentFacts) -> list[SeedResult]:
    """Return the runs beside ``run`` that differ in nothing but their seed, itself included."""
    found: dict[int, SeedResult] = {}
    others = sorted(set(run.resolve().parent.iterdir()) - {run.resolve()})
    for folder in [*others, run.resolve()]:  # of two runs with its seed its own counts
        settings, report = settings_folders(folder), folder / "evaluation.json"
        if len(settings) != 1 or not report.is_file():
            continue
        try:
            config = _yaml((settings[0] / "config.yml").read_bytes(), str(folder))
            evaluation = strict_json.parse(report.read_bytes(), str(report))
            same = {**config, "seed": None} == {**facts.config, "seed": None}
            if same and evaluation["returns"]:
                returns = [float(value) for value in evaluation["returns"]]
                steps = evaluation.get("num_timesteps")
                found[config["seed"]] = SeedResult(config["seed"], steps, returns)
        except (BundleError, OSError, KeyError, TypeError, ValueError):
            continue  # another kind of folder
    return [found[seed] for seed in sorted(found)] if len(found) > 1 else []


def _yaml(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"{where} is no YAML: {' '.join(str(error).split())}.") from error
    return value if isinstance(value, dict) else {}


def _json(bundle: Bundle, name: str) -> dict[str, Any]:
    value = strict_json.parse(bundle.read(name), name)
    returns = value.get("returns") if isinstance(value, dict) else None
    if not isinstance(returns, list) or not returns:
        raise BundleError(f"{bundle.path / name} holds no episodes; evaluate the agent again.")
    return dict(value)
