"""Hyperparameter files: how they are read, merged, overridden and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

from agents import registry
from agents.errors import ConfigError, UnknownName
from hub.schedules import Linear
from zoo.hyperparameters import (
    RUN_KEYS,
    Hyperparameters,
    build_agent_kwargs,
    check_agent,
    resolve_hyperparameters,
)
from zoo.plain_yaml import dump_yaml, load_yaml
from zoo.presets import parse_overrides, read_entries
from zoo.typed_values import coerce

FILE = """
default:
  policy: MlpPolicy
  n_timesteps: 1e6
  n_envs: 4
  source: not inherited
  learning_rate: 3e-4
  policy_kwargs: {net_arch: [32], log_std_init: -0.5}
CartPole-v1: &cartpole
  source: "by hand"
  n_steps: 128
  gamma: 0.98
  normalize: true
Pendulum-v1:
  <<: *cartpole
  gamma: 0.9
  clip_range: lin_0.2
"""


@pytest.fixture
def conf_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yml"
    path.write_text(FILE)
    return path


def resolve(conf_file: Path, env_id: str = "CartPole-v1", *overrides: str) -> Hyperparameters:
    return resolve_hyperparameters("ppo", env_id, conf_file=conf_file, overrides=overrides)


def refusal(*overrides: str, algo: str = "ppo") -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_hyperparameters(algo, "Walker2d-v4", overrides=overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- YAML ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1e6),
        ("3e-4", 3e-4),
        ("1.0e6", 1e6),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("!!float 1e6", 1e6),
        (".inf", float("inf")),
    ],
)
def test_floats(text: str, value: float) -> None:
    read = load_yaml(text, "test")
    assert read == value
    assert isinstance(read, float)


@pytest.mark.parametrize(
    ("text", "value"), [("16", 16), ("-1", -1), ("1_000_000", 1_000_000), ("0x10", 16), ("0", 0)]
)
def test_integers(text: str, value: int) -> None:
    read = load_yaml(text, "test")
    assert read == value
    assert isinstance(read, int)


@pytest.mark.parametrize("text", ["e6", "1e", "v4", "2021-04-21", "1:30", "010", "lin_3e-4", "."])
def test_texts_stay_texts(text: str) -> None:
    assert load_yaml(text, "test") == text


def test_anchors_and_merge_keys() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, x: 4}\n"
    assert load_yaml(text, "test") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 4, "y": 3},
    }


def test_duplicate_key_is_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        load_yaml("a: 1\nb:\n  x: 1\n  x: 2\n", "mine.yml")
    assert str(caught.value) == "mine.yml, line 4: 'x' is given twice; delete one of the two."


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.system [echo]", "!!python/name:os.system x", "!include other.yml"],
)
def test_tags_are_refused(tag: str) -> None:
    with pytest.raises(ConfigError, match=r"mine.yml, line 1: the tag '!.*is refused") as caught:
        load_yaml(f"a: {tag}", "mine.yml")
    assert "data only" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", r"mine.yml, line 1: expected ',' or '\]'"),
        ("a: !!int x", "mine.yml: this is not YAML: invalid literal"),
        ("1: 2", "mine.yml: the key 1 is not a text; write '1'"),
        ("a: .nan", "mine.yml, a: .nan is not a value"),
        ("a: !!binary aGk=", "mine.yml, a: a bytes is not plain data"),
        ("a: !!set {x}", "mine.yml, a: a set is not plain data"),
        ("&a [*a]", "mine.yml: nested deeper than 20 levels"),
        ("a: b\x00", "mine.yml: this is not YAML: unacceptable character"),
    ],
)
def test_bad_yaml_is_our_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml(text, "mine.yml")
    assert "\n" not in str(caught.value)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["1e6", "010", "2021-04-21", "null", "on", "=", "1:30", "lin_3e-4"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_dump_is_the_inverse_of_load(value: dict[str, Any]) -> None:
    assert load_yaml(dump_yaml(value), "test") == value


def test_other_readers_see_the_same_numbers() -> None:
    value = {"a": 1e-8, "b": 3e-4, "c": 1e22, "d": "1e6", "e": "010"}
    assert yaml.safe_load(dump_yaml(value)) == value


def test_dump_follows_no_anchors() -> None:
    shared = [64, 64]
    assert "&" not in dump_yaml({"pi": shared, "vf": shared})


# --- types ---


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1e6, int, 1_000_000),
        (1, float, 1.0),
        (2, int | float, 2),
        (2.5, int | float, 2.5),
        (None, float | None, None),
        (True, bool, True),
        ([64.0, 32], list[int] | dict[str, list[int]] | None, [64, 32]),
        ({"pi": [64.0]}, list[int] | dict[str, list[int]], {"pi": [64]}),
        ("adam", Literal["adam", "gauss_newton"], "adam"),
        ("anything", Any, "anything"),
        ([1], "NotEvaluated", [1]),
    ],
)
def test_coerce(value: object, annotation: object, expected: object) -> None:
    result = coerce("key", value, annotation)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (2048.5, int, "key: 2048.5 is not a whole number. Write for example `key: 10`."),
        (True, int, "key: True is not a whole number. Write for example `key: 10`."),
        (float("inf"), int, "key: inf is not a whole number. Write for example `key: 10`."),
        (1, bool, "key: 1 is not true or false. Write for example `key: true`."),
        ("3e-4", float, "key: '3e-4' is not a number. Write for example `key: 0.5`."),
        (None, float, "key: None is not a number. Write for example `key: 0.5`."),
        (5, str, "key: 5 is not a text."),
        (
            "adm",
            Literal["adam", "gauss_newton"],
            "Unknown key 'adm'. Did you mean 'adam'? Known: adam, gauss_newton.",
        ),
    ],
)
def test_coerce_refuses(value: object, annotation: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        coerce("key", value, annotation)
    assert str(caught.value) == message


# --- files and precedence ---


def test_default_then_entry_then_overrides(conf_file: Path) -> None:
    tuned = resolve(conf_file, "CartPole-v1", "gamma=0.5", "n_envs:2")
    assert tuned.n_timesteps == 1_000_000
    assert tuned.agent["learning_rate"] == 3e-4
    assert tuned.agent["n_steps"] == 128
    assert tuned.agent["gamma"] == 0.5
    assert tuned.n_envs == 2
    assert tuned.source == "by hand; changed: gamma, n_envs"


def test_merged_entry(conf_file: Path) -> None:
    tuned = resolve(conf_file, "Pendulum-v1")
    assert tuned.agent["gamma"] == 0.9
    assert tuned.agent["n_steps"] == 128
    assert tuned.agent["clip_range"] == {"schedule": "linear", "start": 0.2, "end": 0.0}
    assert tuned.source == "by hand"


def test_constructor_defaults_are_written_down(conf_file: Path) -> None:
    agent = resolve(conf_file).agent
    assert agent["n_epochs"] == 10
    assert agent["target_kl"] is None
    assert "seed" not in agent
    assert "rollout_buffer_class" not in agent


def test_untuned_is_the_default_entry_alone(conf_file: Path) -> None:
    tuned = resolve_hyperparameters("ppo", "CartPole-v1", conf_file=conf_file, untuned=True)
    assert tuned.agent["n_steps"] == 2048
    assert tuned.n_envs == 4
    assert tuned.normalize is None
    assert tuned.source == f"untuned: the default entry of {conf_file}"


def test_users_file_is_its_own_provenance(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("CartPole-v1: {n_steps: 32}\n")
    tuned = resolve(path)
    assert tuned.source == str(path)
    assert (tuned.policy, tuned.n_timesteps, tuned.n_envs) == ("MlpPolicy", 1_000_000, 1)


def test_packaged_entry_without_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.presets._file_text", lambda *_: "CartPole-v1: {n_steps: 8}")
    with pytest.raises(ConfigError, match=r"hyperparams/ppo.yml: 'CartPole-v1' has no source"):
        resolve_hyperparameters("ppo", "CartPole-v1")


def test_algorithm_without_a_file_runs_untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_entry_points", lambda: {"mine": _Point()})
    assert read_entries("mine") == {}
    tuned = resolve_hyperparameters("mine", "CartPole-v1", untuned=True, overrides=["extra=3"])
    assert tuned.agent["extra"] == 3
    assert tuned.agent["n_steps"] == 2048
    with pytest.raises(UnknownName, match="no tuned entry for it with mine: --untuned"):
        resolve_hyperparameters("mine", "CartPole-v1")


class _Mine(PPO):
    """A third party's: its own keyword, the others passed on."""

    def __init__(self, *args: Any, extra: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra = extra


class _Point:
    value = "tests:_Mine"

    def load(self) -> type[PPO]:
        return _Mine


def test_unlisted_environment_says_what_to_type() -> None:
    with pytest.raises(UnknownName) as caught:
        resolve_hyperparameters("ppo", "Blackjack-v1")
    message = str(caught.value)
    assert message.startswith(
        "Unknown ppo entry 'Blackjack-v1'. Known: Acrobot-v1, Ant-v4, Ant-v5,"
    )
    assert message.endswith(
        "Gymnasium has this environment, but there is no tuned entry for it with ppo: --untuned "
        "trains with the default entry of hyperparams/ppo.yml, --conf-file FILE gives your own "
        "values."
    )


def test_mistyped_environment_suggests() -> None:
    with pytest.raises(UnknownName) as caught:
        resolve_hyperparameters("ppo", "Walker2-v4")
    assert str(caught.value).startswith(
        "Unknown environment 'Walker2-v4'. Did you mean 'Walker2d-v4'? Known: Acrobot-v1,"
    )


def test_default_is_not_an_environment(conf_file: Path) -> None:
    with pytest.raises(UnknownName, match="Unknown environment 'default'"):
        resolve(conf_file, "default")


def test_unknown_algorithm_comes_first() -> None:
    with pytest.raises(UnknownName, match=r"Unknown algorithm 'tpro'. Did you mean 'trpo'\?"):
        resolve_hyperparameters("tpro", "Nowhere-v0")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.yml", None, r"missing.yml' cannot be read \(No such file or directory\); give"),
        ("mine.py", "x = 1", r"mine.py' is not a .yml file; give --conf-file a YAML file"),
        ("mine.yml", "", "write a mapping from environment ids"),
        ("mine.yml", "CartPole-v1:", "the entry 'CartPole-v1' is None; write `KEY: VALUE` lines"),
    ],
)
def test_unreadable_file(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        resolve(path)


# --- overrides ---


def test_parse_overrides() -> None:
    pairs = ["target_kl=0.02", "learning_rate:lin_3e-4", "policy_kwargs.log_std_init=-1", "x=null"]
    pairs += ["policy_kwargs:{net_arch: {pi: [8]}}", "n_steps = 1e3", "target_kl=0.03"]
    assert parse_overrides(pairs) == {
        "target_kl": 0.03,
        "learning_rate": "lin_3e-4",
        "policy_kwargs.log_std_init": -1,
        "x": None,
        "policy_kwargs": {"net_arch": {"pi": [8]}},
        "n_steps": 1000.0,
    }


@pytest.mark.parametrize("pair", ["gamma", "gamma=", "=1", "a..b=1", "a.=1", "1a=2"])
def test_malformed_override(pair: str) -> None:
    with pytest.raises(ConfigError, match=r"is not KEY=VALUE; write for example target_kl=0.02"):
        parse_overrides([pair])


def test_dotted_override_changes_one_value_inside(conf_file: Path) -> None:
    tuned = resolve(conf_file, "CartPole-v1", "policy_kwargs.log_std_init=-1")
    assert tuned.agent["policy_kwargs"] == {"net_arch": [32], "log_std_init": -1.0}
    assert read_entries("ppo", conf_file)["default"]["policy_kwargs"]["log_std_init"] == -0.5


def test_whole_override_replaces_the_mapping(conf_file: Path) -> None:
    tuned = resolve(conf_file, "CartPole-v1", "policy_kwargs={ortho_init: false}")
    assert tuned.agent["policy_kwargs"] == {"ortho_init": False}


def test_mapping_of_plain_values_as_overrides(conf_file: Path) -> None:
    tuned = resolve_hyperparameters(
        "ppo", "CartPole-v1", conf_file=conf_file, overrides={"env_kwargs.gravity": 1.0}
    )
    assert tuned.env_kwargs == {"gravity": 1.0}
    with pytest.raises(ConfigError, match="overrides, n_steps: a tuple is not plain data"):
        resolve_hyperparameters("ppo", "CartPole-v1", overrides={"n_steps": (1, 2)})


def test_dotted_override_below_a_number() -> None:
    # given first, so that no tuned preset decides what the message says
    assert refusal("learning_rate=5e-05", "learning_rate.start=1e-4") == (
        "'learning_rate.start' cannot be set: learning_rate is 5e-05 and not a mapping. "
        "Give all of it, as in learning_rate={start: 0.0001}."
    )


# --- normalize ---


def test_normalize_is_complete_and_takes_the_agents_gamma(conf_file: Path) -> None:
    assert resolve(conf_file).normalize == {
        "norm_obs": True,
        "norm_reward": True,
        "clip_obs": 10.0,
        "clip_reward": 10.0,
        "gamma": 0.98,
        "epsilon": 1e-8,
    }


def test_normalize_overrides(conf_file: Path) -> None:
    some = resolve(conf_file, "CartPole-v1", "normalize.norm_reward=false", "normalize.gamma=1")
    assert some.normalize is not None
    assert (some.normalize["norm_obs"], some.normalize["norm_reward"]) == (True, False)
    assert some.normalize["gamma"] == 1.0
    assert resolve(conf_file, "CartPole-v1", "normalize=false").normalize is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "normalize.norm_observation=true",
            "Unknown key of normalize 'norm_observation'. Did you mean 'norm_obs'?",
        ),
        ("normalize.clip_obs=true", "normalize.clip_obs: True is not a number."),
        (
            "normalize=\"{'norm_obs': True, 'norm_reward': False}\"",
            "is not true or false or a mapping or null. Write for example `normalize: false`.",
        ),
    ],
)
def test_bad_normalize(override: str, message: str) -> None:
    assert message in refusal(override)


# --- checks ---


def test_unknown_key_suggests_and_lists() -> None:
    message = refusal("cg_max_steps=10", algo="npg")
    assert message.startswith("Unknown npg setting 'cg_max_steps'. Did you mean 'cg_max_iters'?")
    for key in (*RUN_KEYS, "target_kl", "learning_rate", "step_size", "critic"):
        assert f" {key}" in message
    assert "tensorboard_log" not in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["n_steps=2048.5"], "n_steps: 2048.5 is not a whole number. Write for example `n_steps: "),
        (["seed=1"], "Give the seed with --seed."),
        (["device=cpu"], "Give the device with --device."),
        (["n_timesteps=0"], "n_timesteps: 0 is below 1; write n_timesteps: 1 or more."),
        (["batch_size=1"], "batch_size: 1 is below 2; write batch_size: 2 or more."),
        (["gamma=1.01"], "gamma: 1.01 is not between 0 and 1; write for example gamma: 0.99."),
        (["n_steps=1", "n_envs=1"], "n_steps: 1 with n_envs: 1 collects one sample per update"),
        (["policy=MlpPolcy"], "Unknown ppo policy 'MlpPolcy'. Did you mean 'MlpPolicy'?"),
        (["target_kl=lin_0.1"], "target_kl: 'lin_0.1' is not a number or null."),
        (["use_sde=1"], "use_sde: 1 is not true or false. Write for example `use_sde: false`."),
        (["source=null"], "source: None is not a text."),
        (["clip_range={schedule: liner}"], "Unknown schedule 'liner'. Did you mean 'linear'?"),
        (["policy_kwargs.net_arc=[8]"], "Unknown key of policy_kwargs 'net_arc'. Did you mean "),
        (["policy_kwargs.net_arch=[8, b]"], "policy_kwargs.net_arch: 'b' is not a whole number."),
        (["policy_kwargs.activation_fn=nn.Tanh"], "Unknown activation_fn 'nn.Tanh'. Did you mean"),
        (["policy_kwargs.optimizer_class=[1]"], "Unknown optimizer_class '[1]'. Known: adam, "),
        (["policy_kwargs.features_extractor_class=x"], "features_extractor_class 'x'. Known: "),
    ],
)
def test_refused_settings(overrides: list[str], message: str) -> None:
    assert message in refusal(*overrides)


def test_python_in_a_string_is_refused() -> None:
    assert refusal("policy_kwargs=dict(net_arch=[64, 64])") == (
        "policy_kwargs: 'dict(net_arch=[64, 64])' is not a mapping, and Python is never run. Write "
        "YAML, as in `policy_kwargs: {net_arch: {pi: [64, 64], vf: [64, 64]}, "
        "activation_fn: tanh}`."
    )


def test_schedule_where_the_constructor_takes_one() -> None:
    tuned = resolve_hyperparameters("npg", "Walker2d-v4", overrides=["target_kl=lin_0.02"])
    assert tuned.agent["target_kl"] == {"schedule": "linear", "start": 0.02, "end": 0.0}


def test_checked_settings_stay_the_same_when_checked_again() -> None:
    tuned = resolve_hyperparameters("npg", "InvertedPendulum-v4")
    assert check_agent("npg", tuned.policy, tuned.agent) == tuned.agent


# --- building ---


def test_build_agent_kwargs(conf_file: Path) -> None:
    tuned = resolve(
        conf_file,
        "CartPole-v1",
        "learning_rate=lin_3e-4",
        "policy_kwargs.activation_fn=silu",
        "policy_kwargs.optimizer_class=rmsprop_tf_like",
    )
    kwargs = build_agent_kwargs(tuned.agent)
    assert kwargs["learning_rate"] == Linear(3e-4, 0.0)
    assert kwargs["policy_kwargs"]["activation_fn"] is torch.nn.SiLU
    assert kwargs["policy_kwargs"]["optimizer_class"] is RMSpropTFLike
    assert kwargs["n_steps"] == 128
    assert tuned.agent["policy_kwargs"]["activation_fn"] == "silu"  # the record stays plain
