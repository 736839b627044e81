"""The command from end to end."""

import json
import pickle
import re
import shlex

import numpy as np
import pytest
import torch
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.npg import NPG
from hub.gym_env import make_gym_env
from hub.seeding import evaluation_seeds
from zoo.agent_file import load_agent_file
from zoo.config import RunConfig
from zoo.evaluation import evaluate, policy_actor
from zoo.runs import RunFolder, create_run_folder
from zoo.train import main
from zoo.trained import load_trained
from zoo.training import train

PENDULUM = "InvertedPendulum-v5"
BUNDLE = {
    *("README.md", "agent.json", "policy.safetensors", "normalizer.safetensors"),
    *("optimizer.safetensors", "policy.onnx", "policy.f64.onnx", "evaluation.json", "curve.csv"),
    *("config.yml", "command.txt"),
}
SMALL = ["n_steps=32", "n_envs=2", "normalize=true"]


def command(tools, folder, *more, env=PENDULUM, settings=()):
    hyperparameters = ["--hyperparams", *SMALL, "policy_kwargs={net_arch: [8]}", *settings]
    return tools.tiny("npg", env, folder, "-n", "640", *more, *hyperparameters)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run with everything switched on, the final evaluation in its full length."""
    folder = tmp_path_factory.mktemp("finished")
    argv = [
        *("--algo", "npg", "--env", PENDULUM, "-n", "640", "--seed", "3", "-f", str(folder)),
        *("--eval-freq", "192", "--eval-episodes", "3", "--save-freq", "256"),
        *("--hyperparams", *SMALL, "policy_kwargs={net_arch: [8]}", "--vec-env", "dummy"),
    ]
    assert main([*argv, "--no-progress"]) == 0
    (path,) = folder.glob("*/*")
    return RunFolder.open(path), argv


def test_layout_of_the_folder(finished):
    run, _ = finished
    files = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    assert files == {
        f"{PENDULUM}.zip",
        "best_model.zip",
        "rl_model_256_steps.zip",
        "rl_model_512_steps.zip",
        "0.monitor.csv",
        "progress.csv",
        "evaluations.npz",
        "evaluation.json",
        f"{PENDULUM}/config.yml",
        f"{PENDULUM}/command.txt",
        f"{PENDULUM}/vecnormalize.pkl",
        *(f"bundle/{name}" for name in BUNDLE),
    }
    assert run.path.relative_to(run.path.parents[1]).as_posix() == f"npg/{PENDULUM}_1"


def test_final_evaluation(finished):
    run, _ = finished
    report = json.loads(run.final_evaluation.read_text())
    assert report["seeds"] == evaluation_seeds(0, 100)
    assert len(report["returns"]) == len(report["lengths"]) == 100
    assert report["mean_return"] == pytest.approx(np.mean(report["returns"]), rel=1e-12)
    assert report["std_return"] == pytest.approx(np.std(report["returns"]), rel=1e-12)
    expected = {
        "algo": "npg",
        "env_id": PENDULUM,
        "env_kwargs": {},
        "training_seed": 3,
        "num_timesteps": 640,
        "deterministic": True,
        "played_with": "policy.f64.onnx",
    }
    assert "problem" not in report
    assert {key: report[key] for key in expected} == expected


def test_final_evaluation_can_be_repeated_from_the_files(finished):
    run, _ = finished
    report = json.loads(run.final_evaluation.read_text())
    for n_envs in (1, 7):  # whoever else is played beside it, to the last bit
        agent = load_trained(str(run.path))
        again = evaluate(agent.actor(), PENDULUM, seeds=report["seeds"][:20], n_envs=n_envs)
        assert again.returns == report["returns"][:20]
        assert again.lengths == report["lengths"][:20]


def test_learning_curve(finished):
    run, _ = finished
    with np.load(run.evaluations) as curve:
        assert sorted(curve.files) == ["ep_lengths", "results", "timesteps"]
        assert curve["timesteps"].tolist() == [192, 384, 576]
        assert curve["results"].shape == curve["ep_lengths"].shape == (3, 3)
        best = int(curve["timesteps"][curve["results"].mean(axis=1).argmax()])
    assert load_agent_file(run.best_model).training_state["num_timesteps"] == best


def test_each_agent_has_its_own_normaliser(finished):
    run, _ = finished
    for timesteps, path in {**run.checkpoints(), 640: run.final_model}.items():
        file = load_agent_file(path)
        assert file.training_state["num_timesteps"] == timesteps
        # Every step and two resets of each segment, beside SB3's first 1e-4.
        assert float(file.normalizer["ret.count"]) == pytest.approx(timesteps, abs=1)


def test_monitor_holds_every_episode(finished, tools):
    run, _ = finished
    episodes = load_results(str(run.path))
    assert list(episodes.columns[1:4]) == ["r", "l", "t"]
    assert len(episodes) == len(tools.rows(run.monitor, set())) > 10
    assert 500 < episodes["l"].sum() <= 640
    # One point of reward per step; v5 gives none for the last.
    np.testing.assert_array_equal(episodes["r"], episodes["l"] - 1)
    assert json.loads(run.monitor.read_text().splitlines()[0][1:])["env_id"] == PENDULUM


def test_progress(finished, tools):
    run, _ = finished
    table = tools.rows(run.progress, set())
    steps = [int(row["time/total_timesteps"]) for row in table]
    assert steps == list(range(64, 641, 64))
    assert [int(row["time/iterations"]) for row in table] == list(range(1, 11))
    assert [row["time/total_timesteps"] for row in table if "eval/mean_reward" in row] == [
        *("256", "448", "640")  # an evaluation belongs to the row of the rollout after it
    ]


def test_evaluation_at_the_very_end_is_logged(tools, tmp_path):
    assert main(command(tools, tmp_path, "--eval-freq", "320")) == 0
    run = tools.only_run(tmp_path)
    with np.load(run.evaluations) as curve:
        assert curve["timesteps"].tolist() == [320, 640]
        last = curve["results"][-1].mean()
    row = tools.rows(run.progress, set())[-1]
    assert row["time/total_timesteps"] == "640"
    assert float(row["eval/mean_reward"]) == last


def test_sb3_reads_the_agents(finished):
    run, _ = finished
    agent = load_trained(str(run.path))
    raw = np.random.default_rng(0).normal(size=(100, 4))
    expected = policy_actor(agent.policy, agent.normalizer, deterministic=True)(raw)
    np.testing.assert_allclose(agent.actor()(raw), expected, atol=1e-6)  # float64
    wrapped = VecNormalize.load(
        str(run.vec_normalize), DummyVecEnv([lambda: make_gym_env(PENDULUM)])
    )
    model = NPG.load(run.final_model, env=wrapped)
    actions = model.predict(wrapped.normalize_obs(raw), deterministic=True)[0]
    np.testing.assert_array_equal(actions, expected)
    assert type(pickle.loads(run.vec_normalize.read_bytes())) is VecNormalize
    for path in (run.best_model, *run.checkpoints().values()):
        assert NPG.load(path).num_timesteps in (192, 256, 384, 512, 576)


def same_agent(tools, one, two):
    tools.assert_same_tree(tools.agent_contents(one), tools.agent_contents(two))


def test_config_repeats_the_run(finished, tools, tmp_path):
    run, _ = finished
    config = RunConfig.from_yaml(run.config.read_text())
    assert config.n_timesteps == 640
    assert config.seed == 3
    again = create_run_folder(tmp_path, config.algo, config.env_id)
    with train(config, again, progress=False) as model:
        assert model.num_timesteps == 640
    same_agent(tools, run.final_model, again.final_model)
    same_agent(tools, run.best_model, again.best_model)


@pytest.mark.usefixtures("few_final_episodes")
def test_command_repeats_the_run(tools, tmp_path):
    argv = [word for word in command(tools, tmp_path / "a") if word not in ("--seed", "3")]
    assert main(argv) == 0
    run = tools.only_run(tmp_path / "a")
    python, m, module, *arguments = shlex.split(run.command.read_text())
    assert (python, m, module) == ("python", "-m", "zoo.train")
    assert arguments[: len(argv)] == argv
    assert arguments[len(argv) :] == [
        "--seed",
        str(RunConfig.from_yaml(run.config.read_text()).seed),
    ]
    assert main([*arguments, "-f", str(tmp_path / "b")]) == 0
    same_agent(tools, run.final_model, tools.only_run(tmp_path / "b").final_model)


@pytest.mark.usefixtures("few_final_episodes")
@pytest.mark.parametrize("backend", ["dummy", "subproc", "envpool"])
def test_seed_decides_everything(tools, tmp_path, backend):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        argv = command(tools, tmp_path / name, "--vec-env", backend, "-n", "192")
        argv += ["--save-freq", "64"]
        assert main([*argv, "--seed", seed]) == 0
    a, b, c = (tools.only_run(tmp_path / name) for name in "abc")
    same_agent(tools, a.final_model, b.final_model)
    assert tools.rows(a.monitor, {"t"}) == tools.rows(b.monitor, {"t"})
    mine, theirs = (load_agent_file(run.final_model).parameters["policy"] for run in (a, c))
    assert not any(torch.equal(mine[key], theirs[key]) for key in mine if "weight" in key)


@pytest.mark.usefixtures("few_final_episodes")
def test_evaluations_change_nothing(tools, tmp_path):
    """With or without them: the same agent, normaliser and episodes."""
    runs = []
    for name, frequency in (("never", "0"), ("often", "64")):
        assert main(command(tools, tmp_path / name, "--eval-freq", frequency)) == 0
        runs.append(tools.only_run(tmp_path / name))
    contents = [tools.agent_contents(run.final_model) for run in runs]
    for content in contents:
        content["state"].pop("best_mean_return")
        content["state"].pop("metrics")
        content["state"].pop("metrics_excluded")
    tools.assert_same_tree(*contents)
    assert tools.rows(runs[0].monitor, {"t"}) == tools.rows(runs[1].monitor, {"t"})
    assert not runs[0].evaluations.exists()
    assert not runs[0].best_model.exists()


@pytest.mark.usefixtures("few_final_episodes")
def test_result_is_the_last_line_and_the_rest_goes_to_standard_error(tools, tmp_path, capsys):
    argv = [word for word in command(tools, tmp_path) if word != "--no-progress"]
    assert main([*argv, "--verbose"]) == 0
    captured = capsys.readouterr()
    run = tools.only_run(tmp_path)
    report = json.loads(run.final_evaluation.read_text())
    assert captured.out == (
        f"npg {PENDULUM} seed 3: return {report['mean_return']:.2f} ± {report['std_return']:.2f} "
        f"over 3 episodes after 640 steps ({run.path})\n"
    )
    bars = re.split(r"[\r\n]+", captured.err)
    training = [bar for bar in bars if bar.startswith(f"npg {PENDULUM}: 100%")]
    # steps, time gone and left, steps/s, mean return
    assert re.search(r"640/640 \[00:\d\d<00:00, .*step/s, return \d+\.\d\]", training[-1])
    assert any(bar.startswith("evaluating: 100%") for bar in bars)
    assert "| time/" in captured.err


@pytest.mark.usefixtures("few_final_episodes")
@pytest.mark.parametrize(
    ("algo", "env", "settings"),
    [
        ("trpo", "CartPole-v1", ["normalize=false"]),
        ("ppo", "Pendulum-v1", ["use_sde=true", "n_epochs=2", "batch_size=32"]),
        ("a2c", "CartPole-v1", ["n_steps=8"]),
        ("a3c", "CartPole-v1", ["n_steps=8", "n_workers=1"]),
        ("npg", "FrozenLake-v1", ["normalize=false"]),
    ],
)
def test_other_algorithms_and_tasks(tools, tmp_path, algo, env, settings):
    argv = tools.tiny(algo, env, tmp_path, "-n", "300", "--eval-freq", "100", "--save-freq", "100")
    argv += ["--untuned", "--hyperparams", *SMALL, *settings]
    assert main(argv) == 0
    run = tools.only_run(tmp_path)
    agent = load_trained(str(run.path))
    assert agent.n_timesteps >= 300
    with make_gym_env(env) as environment:
        observation = np.asarray(environment.reset(seed=0)[0])[None]
        assert environment.action_space.contains(agent.actor()(observation)[0])
    assert (agent.normalizer is None) == ("normalize=false" in settings)
    assert run.vec_normalize.is_file() == (agent.normalizer is not None)
