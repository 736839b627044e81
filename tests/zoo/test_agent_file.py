import json
import pickle
import zipfile

import gymnasium
import numpy as np
import pytest
import torch

from agents.errors import RunFolderError
from agents.npg import NPG
from agents.registry import algorithm_class
from zoo.agent_file import load_agent_file, save_agent_file

STATISTICS = {"obs.mean": np.arange(4.0), "ret.var": np.array(0.1)}


@pytest.fixture
def model():
    return NPG("MlpPolicy", "CartPole-v1", n_steps=8, policy_kwargs={"net_arch": [4]}, seed=0)


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "agent.zip"
    save_agent_file(path, model, STATISTICS, {"num_timesteps": 8})
    return path


def test_round_trip(model, path):
    file = load_agent_file(path)
    assert file.training_state == {"num_timesteps": 8}
    for name, array in STATISTICS.items():
        np.testing.assert_array_equal(file.normalizer[name], array)
    weights = model.policy.state_dict()
    assert file.parameters["policy"].keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(file.parameters["policy"][name], tensor)
    assert set(file.parameters) == {"policy", "policy.optimizer"}


@pytest.mark.parametrize(
    "algo", ["a2c", "a3c", "actor_critic", "npg", "ppo", "ppo_kl", "reinforce", "trpo"]
)
def test_sb3_reads_it(algo, tmp_path):
    algorithm = algorithm_class(algo)
    model = algorithm("MlpPolicy", "CartPole-v1", n_steps=64, seed=1).learn(64)
    save_agent_file(tmp_path / "agent.zip", model, STATISTICS, {})
    loaded = algorithm.load(tmp_path / "agent.zip", env=gymnasium.make("CartPole-v1"))
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    expected = model.predict(observations, deterministic=True)[0]
    np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], expected)
    assert loaded.num_timesteps == model.num_timesteps
    loaded.learn(64, reset_num_timesteps=False)
    assert loaded.num_timesteps == 128


def test_without_normaliser_and_state(model, tmp_path):
    model.save(tmp_path / "plain.zip")
    file = load_agent_file(tmp_path / "plain.zip")
    assert file.normalizer is None
    assert file.training_state == {}


def test_every_truncation_is_noticed(path):
    content = path.read_bytes()
    for length in range(0, len(content), 251):
        path.write_bytes(content[:length])
        with pytest.raises(RunFolderError, match="is corrupted"):
            load_agent_file(path)


def test_flipped_bits_are_noticed_or_harmless(path, model):
    """The archive's checksums cover all that is read; the rest may be anything."""
    content = path.read_bytes()
    expected = load_agent_file(path)
    noticed = 0
    for position in range(0, len(content), 61):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            file = load_agent_file(path)
        except RunFolderError:
            noticed += 1
            continue
        assert file.training_state == expected.training_state
        for name, tensor in file.parameters["policy"].items():
            assert torch.equal(tensor, expected.parameters["policy"][name])
    assert noticed > 20


@pytest.mark.parametrize("member", [b"training_state.json", b"normalizer.safetensors"])
@pytest.mark.parametrize("place", ["the member's own header", "the directory of the archive"])
def test_a_damaged_name_does_not_make_a_member_absent(path, member, place):
    content = path.read_bytes()
    find = content.index if place == "the member's own header" else content.rindex
    damaged = bytearray(content)
    damaged[find(member)] ^= 0x10
    path.write_bytes(damaged)
    with pytest.raises(RunFolderError, match="is corrupted"):
        load_agent_file(path)


def test_missing_file(tmp_path):
    with pytest.raises(RunFolderError, match="There is no"):
        load_agent_file(tmp_path / "none.zip")


def rewrite(path, **members):
    """Replace members of an archive."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (kept | members).items():
            archive.writestr(name, content)


class Exploit:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


def test_code_is_never_run(path, tmp_path):
    torch.save(Exploit(), tmp_path / "exploit.pth")
    rewrite(path, **{"policy.pth": (tmp_path / "exploit.pth").read_bytes()})
    with pytest.raises(RunFolderError, match="is corrupted"):
        load_agent_file(path)


def test_pickles_beside_the_weights_are_not_read(path):
    data = {"policy_class": {":serialized:": pickle.dumps(Exploit()).hex()}}
    rewrite(path, data=json.dumps(data), **{"pytorch_variables.pth": pickle.dumps(Exploit())})
    assert load_agent_file(path).training_state == {"num_timesteps": 8}


@pytest.mark.parametrize("state", ["[1]", "3", "null", "{"])
def test_state_of_another_kind(path, state):
    rewrite(path, **{"training_state.json": state})
    with pytest.raises(RunFolderError):
        load_agent_file(path)


def test_old_file_survives_a_full_disk(path, model, monkeypatch):
    content = path.read_bytes()

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(RunFolderError, match="No space left"):
        save_agent_file(path, model, STATISTICS, {})
    assert path.read_bytes() == content
