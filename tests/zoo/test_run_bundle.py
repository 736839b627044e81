"""Every training run ends with its agent as it is published."""

import csv
import json
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import SAC

from agents.errors import BundleError, ExportError
from agents.registry import algorithm_class, algorithm_names, constructor_parameters
from hub import portable_agent
from hub.bundle import Bundle, save_bundle
from hub.leak_check import shareable_command
from hub.runtime import OnnxPolicy
from zoo import evaluate, run_bundle, verify
from zoo.evaluation import policy_actor
from zoo.runs import RunFolder
from zoo.train import main
from zoo.trained import load_trained

ENV = "Pendulum-v1"
FILES = {
    *("policy.safetensors", "normalizer.safetensors", "optimizer.safetensors"),
    *("policy.onnx", "policy.f64.onnx", "evaluation.json", "curve.csv"),
    *("config.yml", "command.txt"),
}


@pytest.fixture(autouse=True)
def _few(few_final_episodes):
    pass


def train(tools, folder, algo, *more, settings=()):
    """Train for a few updates and return the run."""
    known = constructor_parameters(algorithm_class(algo))
    hyperparameters = ["normalize=true", "n_envs=2", *settings]
    hyperparameters += ["n_steps=32"] if "n_steps" in known else []
    hyperparameters += ["batch_size=32"] if "batch_size" in known else []
    argv = tools.tiny(algo, ENV, folder, "-n", "256", "--untuned", "--eval-freq", "128", *more)
    assert main([*argv, "--hyperparams", *hyperparameters]) == 0
    return tools.only_run(folder)


def observations_of(agent):
    """Return observations as training saw them: on both sides of the clip."""
    mean, var = agent.normalizer.arrays["obs.mean"], agent.normalizer.arrays["obs.var"]
    noise = np.random.default_rng(0).normal(size=(500, len(mean)))
    return (mean + 4 * np.sqrt(var) * noise).astype(np.float32)


@pytest.mark.parametrize("algo", algorithm_names())
def test_from_training_to_a_verified_bundle(tools, tmp_path, algo, capsys):
    """One agent in all its forms: run folder, SB3 model, ONNX files; and nothing else passes."""
    run = train(tools, tmp_path, algo)
    bundle = Bundle.open(run.bundle)
    assert set(bundle.files) == FILES
    assert (bundle.manifest.algorithm, bundle.manifest.env_id) == (algo, ENV)
    final = load_trained(run.path)
    raw = observations_of(final)
    expected = policy_actor(final.policy, final.normalizer, deterministic=True)(raw)
    model = bundle.load_model()
    assert type(model) is algorithm_class(algo)
    actions, _ = model.predict(bundle.normalizer(raw), deterministic=True)
    np.testing.assert_array_equal(actions, expected)
    single, double = OnnxPolicy(run.path), OnnxPolicy(run.path, float64=True)
    np.testing.assert_allclose(single(raw), expected, atol=1e-5)
    np.testing.assert_allclose(double(raw), expected, atol=1e-5)
    np.testing.assert_array_equal(final.actor()(raw), double(raw))
    assert single.metadata["algo"] == algo
    assert single.control_dt == 0.05
    assert verify.main([str(run.path), "-P"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith(f"verified bit for bit: {algo} {ENV}")
    )
    tensors = bytearray((run.bundle / "policy.safetensors").read_bytes())
    tensors[-1] ^= 1
    (run.bundle / "policy.safetensors").write_bytes(tensors)
    assert verify.main([str(run.path), "-P"]) == 1
    assert "it was changed or damaged" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with its bundle, trained with the first of the algorithms."""
    folder = tmp_path_factory.mktemp("finished")
    argv = ["--algo", "npg", "--env", ENV, "-n", "256", "--seed", "3", "-f", str(folder), "-P"]
    argv += ["--untuned", "--eval-freq", "128", "--eval-episodes", "2", "--hyperparams"]
    assert main([*argv, "normalize=true", "n_envs=2", "n_steps=32"]) == 0
    return RunFolder.open(folder / "npg" / f"{ENV}_1")


def test_what_the_files_say(finished):
    bundle = Bundle.open(finished.bundle)
    evaluation = json.loads(bundle.read("evaluation.json"))
    assert evaluation == json.loads(finished.final_evaluation.read_text())
    assert evaluation["played_with"] == "policy.f64.onnx"
    for float64 in (False, True):
        policy = OnnxPolicy(finished.path, float64=float64)
        assert json.loads(policy.metadata["evaluation"]) == {
            "mean_return": evaluation["mean_return"],
            "std_return": evaluation["std_return"],
            "num_timesteps": 256,
            "n_episodes": 100,
        }
    assert bundle.read("config.yml") == finished.config.read_bytes()
    command = bundle.read("command.txt").decode()  # without what says where runs are kept
    assert command == shareable_command(finished.command.read_text()) + "\n"
    assert "--log-folder" not in command
    assert "--algo npg" in command
    card = (finished.bundle / "README.md").read_text()
    assert card.startswith(f"# npg on {ENV}\n")
    mean, std = evaluation["mean_return"], evaluation["std_return"]
    assert f"Return {mean:.1f} ± {std:.1f} over 100 deterministic episodes after 256 steps" in card
    assert bundle.manifest.counters["num_timesteps"] == 256


def test_the_curve_is_that_of_training(finished):
    rows = list(csv.DictReader((finished.bundle / "curve.csv").read_text().splitlines()))
    with np.load(finished.evaluations) as curve:
        assert [int(row["timesteps"]) for row in rows] == curve["timesteps"].tolist() == [128, 256]
        for row, returns, lengths in zip(rows, curve["results"], curve["ep_lengths"], strict=True):
            assert float(row["mean_return"]) == np.mean(returns)
            assert float(row["std_return"]) == np.std(returns)
            assert float(row["mean_length"]) == np.mean(lengths)
            assert row["n_episodes"] == "2"


def test_the_bundle_is_an_agent_by_itself(finished, tmp_path, capsys):
    """Moved away from its run it does the same, by each of its forms."""
    bundle = tmp_path / "elsewhere"
    bundle.mkdir()
    for path in finished.bundle.iterdir():
        (bundle / path.name).write_bytes(path.read_bytes())
    published = json.loads((bundle / "evaluation.json").read_text())
    for agent in (finished.path, bundle, bundle / "policy.f64.onnx"):
        assert evaluate.main([str(agent), "--episodes", "4", "--json", "-P"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["returns"] == published["returns"][:4]
        assert report["lengths"] == published["lengths"][:4]
        assert (report["algo"], report["env_id"]) == ("npg", ENV)
    loaded = load_trained(bundle)
    assert (loaded.n_timesteps, loaded.training_seed) == (256, 3)
    raw = observations_of(loaded)
    assert not np.array_equal(*[loaded.actor(deterministic=False)(raw) for _ in range(2)])


@pytest.mark.parametrize(
    ("agent", "options", "message"),
    [
        ("bundle", ["--checkpoint", "best"], "--checkpoint best is for run folders"),
        ("bundle/policy.onnx", ["--checkpoint", "100"], "--checkpoint 100 is for run folders"),
        ("bundle/policy.onnx", ["--stochastic"], "gives the most likely action only"),
        ("bundle/policy.onx", [], "policy.onnx'?"),
        ("bundlee", [], "bundle'?"),
    ],
)
def test_what_an_agent_has_not_is_one_line(finished, capsys, agent, options, message):
    assert evaluate.main([str(finished.path / agent), *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_bundle_without_its_onnx_files_acts_the_same(finished, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    document = json.loads((finished.bundle / "agent.json").read_text())
    for name in ("policy.onnx", "policy.f64.onnx"):
        del document["files"][name]
    for name in (*document["files"], "README.md"):
        (bundle / name).write_bytes((finished.bundle / name).read_bytes())
    (bundle / "agent.json").write_text(json.dumps(document))
    agent = load_trained(bundle)
    raw = observations_of(agent)
    np.testing.assert_array_equal(agent.actor()(raw), load_trained(finished.path).actor()(raw))


def test_guests_act_and_are_scored(tmp_path, capsys):
    """An agent of SB3's own SAC, in a bundle that holds no ONNX file."""
    env = gymnasium.make(ENV)
    model = SAC("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    save_bundle(tmp_path / "sac", model, algo="sac", env_id=ENV)
    agent = load_trained(tmp_path / "sac")
    raw = np.array([env.observation_space.sample() for _ in range(50)])
    expected, _ = model.predict(raw, deterministic=True)
    np.testing.assert_allclose(agent.actor()(raw), expected, atol=1e-5)
    assert evaluate.main([str(tmp_path / "sac"), "--episodes", "2", "-P"]) == 0
    assert capsys.readouterr().out.startswith(f"sac {ENV} after 0 steps: return -")


@pytest.mark.slow
@pytest.mark.parametrize("env", ["Hopper-v4", "Ant-v5", "Humanoid-v5", "Pusher-v5"])
def test_mujoco_tasks_repeat_in_another_process(tools, tmp_path, env):
    argv = tools.tiny("npg", env, tmp_path, "-n", "4096", "--eval-freq", "0")
    assert main(argv) == 0
    run = tools.only_run(tmp_path)
    command = [sys.executable, "-m", "zoo.verify", str(run.path), "-P", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["equal"] == "bit for bit"
    assert report["onnx"]["is_rebuilt"]
    assert report["onnx"]["float32_error"] < 1e-5


def test_training_does_not_wait_for_onnx():
    code = "import sys, zoo.train; print([m for m in ('onnx', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_older_bundle_is_replaced(tools, tmp_path):
    run = train(tools, tmp_path, "npg")
    before = Bundle.open(run.bundle).read("policy.safetensors")
    assert main(["--resume", str(run.path), "-n", "512", "-P"]) == 0
    bundle = Bundle.open(run.bundle)
    assert bundle.read("policy.safetensors") != before
    assert bundle.manifest.counters["num_timesteps"] == 512
    assert json.loads(bundle.read("evaluation.json"))["num_timesteps"] == 512
    assert verify.main([str(run.path), "-P"]) == 0
    assert sorted(path.name for path in run.path.glob(".*")) == []


def test_an_activation_that_float64_cannot_compute(tools, tmp_path, capsys):
    """The agent trains, is published in float32 and evaluated with torch, and says so."""
    run = train(tools, tmp_path, "npg", settings=["policy_kwargs={activation_fn: gelu}"])
    error = capsys.readouterr().err
    assert "warning: " in error
    assert "its bundle has no policy.f64.onnx" in error
    bundle = Bundle.open(run.bundle)
    assert "policy.onnx" in bundle.files
    assert "policy.f64.onnx" not in bundle.files
    report = json.loads(bundle.read("evaluation.json"))
    assert report["played_with"] == "torch"
    assert "policy.f64.onnx" in report["problem"]
    assert load_trained(run.path).exact is None
    assert verify.main([str(run.path), "-P"]) == 0
    assert "verified bit for bit" in capsys.readouterr().out


def test_an_agent_that_cannot_be_exported(tools, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise ExportError("this policy computes something else.")

    monkeypatch.setattr(portable_agent, "build_policy_onnx", refuse)
    run = train(tools, tmp_path, "npg")
    assert "its bundle has no ONNX files: this policy computes" in capsys.readouterr().err
    report = json.loads(run.final_evaluation.read_text())
    assert report["played_with"] == "torch"
    assert set(Bundle.open(run.bundle).files) == FILES - {"policy.onnx", "policy.f64.onnx"}
    assert "OnnxPolicy" not in (run.bundle / "README.md").read_text()


def test_an_agent_that_no_bundle_can_hold(tools, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise BundleError("the agent's policy is one of its own.")

    monkeypatch.setattr(run_bundle, "save_bundle", refuse)
    run = train(tools, tmp_path, "npg")
    assert "it has no bundle: the agent's policy is one of its own." in capsys.readouterr().err
    assert not run.bundle.exists()
    report = json.loads(run.final_evaluation.read_text())
    assert report["played_with"] == "torch"
    assert len(report["returns"]) == 3
    assert verify.main([str(run.path), "-P"]) == 1
    assert "has no bundle/ yet" in capsys.readouterr().err
