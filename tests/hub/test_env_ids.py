import gymnasium
import pytest

from agents.errors import ConfigError, UnknownName
from hub.env_ids import MUJOCO_TASKS, check_env_id, is_mujoco_task


@pytest.mark.parametrize("env_id", ["Walker2d-v4", "Walker2d-v5", "Pusher-v5", "CartPole-v1"])
def test_usable_id_is_returned(env_id):
    assert check_env_id(env_id) == env_id


@pytest.mark.parametrize(
    ("env_id", "advice"),
    [
        ("Walker2d-v3", "Use Walker2d-v4 or Walker2d-v5."),
        ("HalfCheetah-v2", "Use HalfCheetah-v4 or HalfCheetah-v5."),
        ("InvertedPendulum-v3", "Use InvertedPendulum-v4 or InvertedPendulum-v5."),
        ("Pusher-v2", "Use Pusher-v5."),
        ("Pusher-v4", "Use Pusher-v5."),
    ],
)
def test_id_that_cannot_be_made_names_its_successor(env_id, advice):
    with pytest.raises(ConfigError) as raised:
        check_env_id(env_id)
    message = str(raised.value)
    assert message.startswith(f"Environment '{env_id}'")
    assert message.endswith(advice)


def test_pusher_v4_says_that_it_needs_an_old_mujoco():
    with pytest.raises(ConfigError, match="needs mujoco<3"):
        check_env_id("Pusher-v4")


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        (
            "Walker2d-v7",
            "Unknown environment 'Walker2d-v7'. Did you mean 'Walker2d-v5'? "
            "Known: Walker2d-v4, Walker2d-v5.",
        ),
        (
            "wlker2d-v4",
            "Unknown environment 'wlker2d-v4'. Did you mean 'Walker2d-v4'? "
            "Known: Walker2d-v4, Walker2d-v5.",
        ),
        (
            "Pusher",
            "Unknown environment 'Pusher'. Did you mean 'Pusher-v5'? Known: Pusher-v5.",
        ),
        (
            "ALE/Pong-v5",
            "Unknown environment 'ALE/Pong-v5'. Install the package that registers 'ALE/…', "
            "or type module:ALE/Pong-v5.",
        ),
    ],
)
def test_unknown_id_lists_versions_of_the_nearest_task(env_id, message):
    with pytest.raises(UnknownName) as raised:
        check_env_id(env_id)
    assert str(raised.value) == message


@pytest.mark.parametrize("env_id", ["zzz", "Walker 2d!", "", "No-Such-Thing-At-All-v1"])
def test_message_stays_one_readable_line(env_id):
    with pytest.raises(UnknownName) as raised:
        check_env_id(env_id)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


def test_module_prefix_is_imported():
    assert check_env_id("gymnasium:CartPole-v1") == "gymnasium:CartPole-v1"
    with pytest.raises(ConfigError, match="asks to import 'no_such_module'"):
        check_env_id("no_such_module:CartPole-v1")


def test_all_mujoco_tasks_are_registered():
    for task in MUJOCO_TASKS:
        assert f"{task}-v5" in gymnasium.registry
        assert check_env_id(f"{task}-v5")
    assert len(MUJOCO_TASKS) == 11


def test_is_mujoco_task():
    assert is_mujoco_task("Ant-v4")
    assert not is_mujoco_task("Ant-v3")
    assert not is_mujoco_task("Pusher-v4")
    assert not is_mujoco_task("CartPole-v1")
    assert not is_mujoco_task("phys2d/Pendulum-v0")
