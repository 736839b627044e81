"""RL Zoo's YAML files: ordinary ones are understood, hostile ones refused, nothing runs."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from pathlib import Path

import pytest
import yaml
from torch import nn

from agents.errors import BundleError
from hub.guests.rl_zoo_yaml import linear_schedule, normalize_settings, read_rl_zoo_yaml


def test_files_as_rl_zoo_writes_them() -> None:
    settings = OrderedDict(
        batch_size=128,
        learning_rate="lin_3e-4",
        n_timesteps=1000000.0,
        normalize=True,
        policy_kwargs="dict(log_std_init=-2, ortho_init=False)",
        env_wrapper=["gymnasium.wrappers.TimeLimit"],
        net_arch=(64, 64),
        activation=nn.ReLU,
        nothing=OrderedDict(),
        none=None,
    )
    found = read_rl_zoo_yaml(yaml.dump(settings), "config.yml")
    expected = dict(settings) | {
        "net_arch": [64, 64],
        "activation": "torch.nn.modules.activation.ReLU",
        "nothing": {},
    }
    assert found == expected
    assert list(found) == sorted(found) or list(found) == list(settings)
    assert read_rl_zoo_yaml("n_envs: 8\nnormalize: true\n", "x") == {"n_envs": 8, "normalize": True}


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [MARKER]",
        "a: !!python/object/apply:os.mkdir [MARKER]",
        "!!python/object/apply:collections.OrderedDict\n- !!python/object/apply:os.mkdir [MARKER]",
        "!!python/object/apply:collections.OrderedDict\n- - - a\n    - !!python/module:os",
        "a: !!python/module:os",
        "a: !!python/object:zoo.runs.RunFolder {}",
        "a: !<tag:yaml.org,2002:python/object/apply:os.mkdir> [MARKER]",
    ],
)
def test_tags_that_would_run_code_are_refused(text: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = text.replace("MARKER", str(marker))
    with pytest.raises(BundleError, match="cannot be read without running code"):
        read_rl_zoo_yaml(text, "config.yml")
    assert not marker.exists()
    if "mkdir" in text:
        with contextlib.suppress(TypeError):
            yaml.load(text, yaml.UnsafeLoader)  # the payload does work
        assert marker.is_dir()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1",
        "1",
        "a: [",
        "{1: 2}",
        "a: &a [*a]\nb: !!python/tuple 3",
        "[" * 2000,
        "x" * 1_000_001,
    ],
)
def test_other_damage_is_refused(text: str) -> None:
    with pytest.raises(BundleError):
        read_rl_zoo_yaml(text, "config.yml")


def test_normalize() -> None:
    assert normalize_settings(True, "x") == {}
    assert normalize_settings(False, "x") is normalize_settings(None, "x") is None
    text = "{'norm_obs': True, 'norm_reward': False}"
    assert normalize_settings(text, "x") == {"norm_obs": True, "norm_reward": False}
    assert normalize_settings({"gamma": 0.98}, "x") == {"gamma": 0.98}


@pytest.mark.parametrize(
    "value", ["__import__('os').mkdir('MARKER')", "{'venv': 1}", {"clip_obs": "10"}, 3, "(" * 999]
)
def test_expressions_are_not_evaluated(value: object, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    if isinstance(value, str):
        value = value.replace("MARKER", str(marker))
    with pytest.raises(BundleError, match="normalize"):
        normalize_settings(value, "config.yml")
    assert not marker.exists()


def test_linear_schedules() -> None:
    assert linear_schedule("lin_3e-4") == {"schedule": "linear", "start": 3e-4, "end": 0.0}
    assert linear_schedule(0.2) == 0.2
    for value in ("lin_", "exp_0.1", "lin_1.2.3", None, True, "__import__('os')"):
        assert linear_schedule(value) is None
