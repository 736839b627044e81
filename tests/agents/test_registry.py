"""Algorithms by name, ours and a third party's that is really installed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm

import agents
from agents import registry
from agents.errors import ConfigError, UnknownName
from agents.registry import algorithm_class, algorithm_names, constructor_parameters

ROOT = Path(agents.__file__).parents[1]


def test_ours_are_registered_as_themselves() -> None:
    for name in ("a2c", "a3c", "npg", "ppo", "ppo_kl", "reinforce", "trpo"):
        assert algorithm_class(name) is getattr(agents, name.upper().replace("_", ""))
    assert algorithm_class("off_pac") is agents.OffPAC
    assert algorithm_class("actor_critic") is agents.ActorCritic
    assert issubclass(algorithm_class("ppo"), stable_baselines3.PPO)
    assert issubclass(algorithm_class("a2c"), stable_baselines3.A2C)
    assert algorithm_names() == sorted(algorithm_names())


@pytest.mark.parametrize(("typed", "meant"), [("tpro", "trpo"), ("NPG", "npg"), ("a2", "a2c")])
def test_an_unknown_name_suggests_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(
        UnknownName, match=rf"'{typed}'\. Did you mean '{meant}'\? Known: a2c, a3c, actor_critic"
    ):
        algorithm_class(typed)


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(UnknownName, match=r"Unknown algorithm 'zzzzzz'\. Known: a2c") as caught:
        algorithm_class("zzzzzz")
    assert caught.value.match is None


def test_constructor_parameters_include_those_of_the_template() -> None:
    npg, trpo = (constructor_parameters(algorithm_class(name)) for name in ("npg", "trpo"))
    assert npg["step_size"].default is None
    assert npg["target_kl"].default == 0.01
    assert trpo["line_search_shrink"].default == 0.8
    assert "step_size" not in trpo
    assert trpo["max_step_size"].default is None
    assert "line_search_shrink" not in npg
    assert {"policy", "env", "seed", "cg_damping"} <= set(npg)
    assert not {"self", "kwargs"} & set(npg)
    # The template's own bases take no **kwargs from it, so what it fixes cannot be passed.
    assert "ent_coef" not in npg


def test_constructor_parameters_of_sb3() -> None:
    ppo = constructor_parameters(algorithm_class("ppo"))
    assert ppo["clip_range"].default == 0.2
    assert "supported_action_spaces" not in ppo


def test_constructor_parameters_of_a_class_without_a_constructor() -> None:
    class Mine(agents.NPG):
        pass

    assert constructor_parameters(Mine) == constructor_parameters(agents.NPG)


class Renamed(agents.NPG):
    """Overrides a default of the template."""

    def __init__(self, *args: Any, target_kl: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, target_kl=target_kl, **kwargs)


def test_the_lowest_class_decides_a_default() -> None:
    assert constructor_parameters(Renamed)["target_kl"].default == 0.5
    assert constructor_parameters(Renamed)["gamma"].default == 0.99


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Return a function that makes a module findable and registers ``name`` as ``value``."""

    def register(value: str, source: str = "", name: str = "my_algo") -> None:
        (tmp_path / "my_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        point = EntryPoint(name, value, registry.ENTRY_POINT_GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [point])
        registry._entry_points.cache_clear()

    yield register
    sys.modules.pop("my_plugin", None)
    registry._entry_points.cache_clear()


@pytest.mark.parametrize(
    ("value", "source", "message"),
    [
        ("no_such_module:Algo", "", "cannot be imported: No module named 'no_such_module'"),
        ("my_plugin:Algo", "import no_such_dependency", "No module named 'no_such_dependency'"),
        ("my_plugin:Algo", "", "has no attribute 'Algo'"),
        ("my_plugin:Algo", "def broken(:", "cannot be imported: invalid syntax"),
        ("my_plugin:Algo", "raise RuntimeError('no licence')", "cannot be imported: no licence"),
        ("my_plugin:Algo", "class Algo: pass", "not a subclass of stable_baselines3"),
        ("my_plugin:Algo", "Algo = 3", "not a subclass of stable_baselines3"),
        ("my_plugin", "", "not a subclass of stable_baselines3"),
    ],
)
def test_a_broken_plugin_says_what_is_wrong(
    plugin: Any, value: str, source: str, message: str
) -> None:
    plugin(value, source)
    assert "my_algo" in algorithm_names()
    with pytest.raises(ConfigError, match=message) as caught:
        algorithm_class("my_algo")
    assert f"'my_algo' is registered as {value}" in str(caught.value)


def test_a_plugin_cannot_replace_ours(plugin: Any) -> None:
    plugin("my_plugin:Algo", "from stable_baselines3 import A2C as Algo", name="npg")
    assert algorithm_class("npg") is agents.NPG


def test_a_plugin_is_found_by_name(plugin: Any) -> None:
    plugin("my_plugin:Algo", "from agents import NPG\nclass Algo(NPG): pass")
    algorithm: type[BaseAlgorithm] = algorithm_class("my_algo")
    assert issubclass(algorithm, agents.NPG)
    with pytest.raises(UnknownName, match="Did you mean 'my_algo'"):
        algorithm_class("my_alog")


def make_wheel(folder: Path) -> Path:
    """Write a wheel by hand, since building one would need the network or a build backend."""
    wheel = folder / "third_party-1.0-py3-none-any.whl"
    info = "third_party-1.0.dist-info"
    files = {
        "third_party.py": "from agents import TRPO\nclass MyAlgo(TRPO):\n    origin = __file__\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": "[natural_zoo.agents]\nmy_algo = third_party:MyAlgo\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in files))
    return wheel


@pytest.fixture
def plugin_site(tmp_path: Path) -> Path:
    """Install a third party's package with pip and return the folder that holds it."""
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    pip += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(site)]
    subprocess.run([*pip, str(make_wheel(tmp_path))], check=True, capture_output=True)
    return site


def run_python(site: Path, folder: Path, *arguments: str) -> str:
    """Run Python in ``folder`` with the plug-in installed and return its standard output."""
    result = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


def test_an_installed_third_party_package_has_the_whole_command_line(
    plugin_site: Path, tmp_path: Path
) -> None:
    settings = ["--untuned", "-n", "256", "--seed", "0", "-P", "--eval-freq", "0"]
    settings += ["--hyperparams", "n_steps=64", "line_search_shrink=0.5"]
    train = ["-m", "zoo.train", "--algo", "my_algo", "--env", "CartPole-v1", *settings]
    line = run_python(plugin_site, tmp_path, *train).splitlines()[-1]
    assert line.startswith("my_algo CartPole-v1 seed 0: return ")
    run = str(Path("logs", "my_algo", "CartPole-v1_1"))
    evaluated = run_python(plugin_site, tmp_path, "-m", "zoo.evaluate", run, "-P")
    # The same agent, the same episodes: the same score.
    assert line.split("return ")[1].split(" over")[0] in evaluated


def test_an_installed_third_party_package_is_found(plugin_site: Path, tmp_path: Path) -> None:
    script = textwrap.dedent("""
        from agents.registry import algorithm_class, algorithm_names
        algorithm = algorithm_class("my_algo")
        print(algorithm.__name__, algorithm.__mro__[1].__name__, algorithm.origin)
        print(*algorithm_names())
    """)
    first, second = run_python(plugin_site, tmp_path, "-c", script).splitlines()
    assert first == f"MyAlgo TRPO {plugin_site / 'third_party.py'}"
    assert second.split() == sorted([*algorithm_names(), "my_algo"])
