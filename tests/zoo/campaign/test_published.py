"""Published numbers: complete, well-formed, and each beside the tasks it may stand beside."""

from __future__ import annotations

import pytest

from hub.env_ids import MUJOCO_TASKS
from zoo.campaign import published
from zoo.campaign.published import bars, best_bar, reference, soft_bar
from zoo.campaign.random_policy import measure, random_return

ENV_IDS = [
    f"{task}-{version}"
    for task in MUJOCO_TASKS
    for version in ("v4", "v5")
    if (task, version) != ("Pusher", "v4")
]


def test_every_number_says_where_it_stands() -> None:
    sources, entries, stand_ins = published._published()
    assert set(stand_ins.values()) <= set(entries)
    assert not set(stand_ins) & set(entries)
    used = set()
    for tasks in entries.values():
        assert set(tasks) <= set(MUJOCO_TASKS)
        for task_entries in tasks.values():
            for entry in task_entries:
                used.add(entry["source"])
                assert entry["version"] in ("v2", "v3", "v4", "v5")
                assert sum(entry[key] is not None for key in ("std", "se", "ci")) <= 1
                assert set(entry["only"] or ["v4"]) <= {"v4", "v5"}
    assert used == set(sources)
    for source in sources.values():
        assert source.url.startswith("https://")
        assert len(source.protocol) > 5


def test_highest_stated_mean_is_the_bar_and_a_higher_soft_one_is_named() -> None:
    bar = best_bar("npg", "Walker2d-v4")
    assert bar is not None
    assert (bar.value, bar.spread, bar.env_id) == (2503.2, "± 963", "Walker2d-v3")
    assert bar.source.name == "Tianshou"
    soft = soft_bar("npg", "Walker2d-v4")
    assert soft is not None
    assert (soft.value, soft.source.key) == (4054.6, "omnisafe")
    assert soft_bar("a2c", "Hopper-v4") is None


def test_a_relative_stands_in_where_nobody_has_published() -> None:
    for algo, relative in (("actor_critic", "a2c"), ("a3c", "a2c"), ("ppo_kl", "ppo")):
        bar = best_bar(algo, "HalfCheetah-v4")
        assert bar == best_bar(relative, "HalfCheetah-v4")
        assert bar.algo == relative
    assert best_bar("npg", "HalfCheetah-v4").algo == "npg"
    assert best_bar("off_pac", "HalfCheetah-v4") is None


def test_spreads_are_shown_as_what_they_are() -> None:
    assert best_bar("trpo", "Hopper-v4").spread == "± 215 (standard error)"
    assert best_bar("trpo", "Humanoid-v4").spread == "[979, 1083]"
    assert best_bar("trpo", "Reacher-v4").spread == ""
    assert best_bar("npg", "Reacher-v4").spread == "± 0.5"
    assert best_bar("npg", "Reacher-v5") is None  # another reward than in v2


def test_tasks_that_are_not_comparable_are_kept_apart() -> None:
    """Ant-v5 pays for contacts, and nobody has published NPG or TRPO on it."""
    assert best_bar("npg", "Ant-v4").env_id == "Ant-v3"
    assert bars("npg", "Ant-v5") == []
    assert {bar.env_id for bar in bars("ppo", "Ant-v5")} == {"Ant-v5"}
    assert best_bar("ppo", "Reacher-v4").value == -4.1
    assert best_bar("ppo", "Reacher-v5").value == -2.8
    assert best_bar("npg", "Pusher-v5") is None
    assert best_bar("npg", "CartPole-v1") is None
    assert best_bar("no_such_algo", "Ant-v4") is None


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_every_task_has_a_scale(env_id: str) -> None:
    zero, one = random_return(env_id), reference(env_id)
    assert zero is not None
    assert one is not None
    assert not one.soft
    assert one.value > zero


def test_reference_is_the_best_of_all_algorithms() -> None:
    assert reference("HalfCheetah-v4").value == 5783.9  # PPO
    assert reference("Humanoid-v4").value == 2002.6  # A2C
    assert reference("Reacher-v4").value == -3.8  # ACKTR, which is not in the zoo
    assert reference("Reacher-v5").value == -2.8  # PPO
    assert reference("CartPole-v1") is None


def test_random_actions_return_what_is_recorded() -> None:
    returns = measure("InvertedPendulum-v4")
    assert sum(returns) / 100 == random_return("InvertedPendulum-v4")
