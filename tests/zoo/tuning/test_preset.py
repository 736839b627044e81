"""Editing a file of hyperparameters: one entry changes, and nothing else."""

from __future__ import annotations

import pytest

from agents.errors import ConfigError
from zoo.plain_yaml import load_yaml
from zoo.presets import read_entries
from zoo.tuning.preset import entry_text, make_entry, read_file, replace_entry
from zoo.tuning.protocol import Protocol
from zoo.tuning.search_space import parse_space

FILE = """\
# A comment on the whole file.

default: {policy: MlpPolicy, n_timesteps: 1e6}

# --- MuJoCo ---

Hopper-v4: &hopper # its comment goes with it
  source: "by hand: 2 & 3 * 4"
  # so does this one

  policy_kwargs: &wide {net_arch: [256, 256]}
Hopper-v5: *hopper

# --- the rest ---

Ant-v4:
  source: "by hand"
  policy_kwargs: *wide
Swimmer-v4:
  source: "by hand"
  policy_kwargs: *wide # as Ant
"""
ENTRY = {"source": "zoo.tune: 5 +- 1", "target_kl": 0.0312, "gamma": 0.99}


def test_others_and_comments_stay() -> None:
    new, sharing = replace_entry(FILE, "Swimmer-v4", ENTRY)
    head = FILE[: FILE.index("Swimmer-v4")]
    assert new == head + entry_text("Swimmer-v4", ENTRY)
    assert entry_text("Swimmer-v4", ENTRY) == (
        "Swimmer-v4:\n  source: 'zoo.tune: 5 +- 1'\n  target_kl: 0.0312\n  gamma: 0.99\n"
    )
    assert sharing == []


def test_who_shares_an_entry_goes_on_sharing_it() -> None:
    new, sharing = replace_entry(FILE, "Hopper-v4", ENTRY)
    assert sharing == ["Hopper-v5"]
    entries = load_yaml(new, "new")
    assert entries["Hopper-v4"] == entries["Hopper-v5"] == ENTRY
    # the anchor inside the old entry is now where it is used next
    assert "policy_kwargs: &wide {net_arch: [256, 256]}\nSwimmer-v4:" in new
    assert "policy_kwargs: *wide # as Ant" in new
    before = load_yaml(FILE, "old")
    for name in ("default", "Ant-v4", "Swimmer-v4"):
        assert entries[name] == before[name]
    assert new.startswith(FILE[: FILE.index("Hopper-v4")])


def test_an_alias_becomes_an_entry_of_its_own() -> None:
    new, sharing = replace_entry(FILE, "Hopper-v5", ENTRY)
    assert sharing == []
    entries = load_yaml(new, "new")
    assert entries["Hopper-v5"] == ENTRY
    assert entries["Hopper-v4"] == load_yaml(FILE, "old")["Hopper-v4"]
    assert "\n\n# --- the rest ---\n" in new


def test_a_new_task_is_appended() -> None:
    new, sharing = replace_entry(FILE, "Walker2d-v4", ENTRY)
    assert new == FILE + "\n" + entry_text("Walker2d-v4", ENTRY)
    assert sharing == []
    assert replace_entry("", "Walker2d-v4", ENTRY)[0] == entry_text("Walker2d-v4", ENTRY)


def test_a_change_of_another_task_is_refused() -> None:
    text = "A-v0: &a\n  x: 1\nB-v0:\n  <<: *a\n  y: 2\n"
    with pytest.raises(ConfigError, match="cannot be replaced without changing that of B-v0"):
        replace_entry(text, "A-v0", ENTRY)


@pytest.mark.parametrize("algo", ["npg", "trpo", "ppo", "a2c", "ppo_kl"])
def test_every_shipped_entry_can_be_replaced(algo: str) -> None:
    text = read_file(algo, None)
    before = read_entries(algo)
    for env_id in before:
        if env_id == "default":
            continue
        new, sharing = replace_entry(text, env_id, ENTRY)
        entries = load_yaml(new, "new")
        assert {name for name in entries if entries[name] != before[name]} == {env_id, *sharing}
        assert all(name == env_id.replace("v4", "v5") for name in sharing)
        comments = [line for line in text.splitlines() if line.startswith("#")]
        assert [line for line in new.splitlines() if line.startswith("#")] == comments


def test_entry_says_what_differs_from_the_default() -> None:
    protocol = Protocol(
        algo="npg",
        env_id="Walker2d-v4",
        space=parse_space("gamma: {choices: [0.9]}", "test"),
        n_timesteps=1000,
        fixed={"cg_damping": 0.2},
    )
    default = read_entries("npg")["default"]
    overrides = {
        "gamma": default["gamma"],
        "target_kl": {"schedule": "linear", "start": 0.05, "end": 0.0},
        "policy_kwargs.log_std_init": -1.0,
    }
    assert make_entry(protocol, overrides, "tuned", 1_000_000) == {
        "source": "tuned",
        "cg_damping": 0.2,
        "target_kl": {"schedule": "linear", "start": 0.05, "end": 0.0},
        # a key replaces all below it, so that what is not changed is written, too
        "policy_kwargs": default["policy_kwargs"] | {"log_std_init": -1.0},
    }
    assert make_entry(protocol, {}, "tuned", 500_000)["n_timesteps"] == 500_000
