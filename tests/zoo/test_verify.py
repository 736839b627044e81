"""What `zoo.verify` must find, also where whoever changed a bundle kept its digests right."""

import hashlib
import json

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import numpy_helper

from agents.errors import VerificationError
from hub.bundle import Bundle
from zoo import train as train_command
from zoo import verification, verify
from zoo.evaluation import Evaluation

ENV = "Pendulum-v1"
N = 8


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The bundle of a run, evaluated over a few episodes."""
    folder = tmp_path_factory.mktemp("published")
    argv = ["--algo", "npg", "--env", ENV, "-n", "256", "--seed", "3", "-f", str(folder), "-P"]
    argv += ["--untuned", "--eval-freq", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_command, "N_FINAL_EPISODES", N)
        settings = ["normalize=true", "n_envs=2", "n_steps=64"]
        assert train_command.main([*argv, "--hyperparams", *settings]) == 0
    return folder / "npg" / f"{ENV}_1" / "bundle"


@pytest.fixture
def bundle(published, tmp_path):
    """A copy to change."""
    copy = tmp_path / "bundle"
    copy.mkdir()
    for path in published.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def put(bundle, name, content):
    """Replace a file as someone would who wants it to look right."""
    (bundle / name).write_bytes(content)
    document = json.loads((bundle / "agent.json").read_text())
    digest = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    document["files"][name] = digest
    (bundle / "agent.json").write_text(json.dumps(document))


def change_evaluation(bundle, **changes):
    """Change evaluation.json, and its summary to go with it."""
    report = json.loads((bundle / "evaluation.json").read_text()) | changes
    if "mean_return" not in changes:
        report["mean_return"] = float(np.mean(report["returns"]))
        report["std_return"] = float(np.std(report["returns"]))
    put(bundle, "evaluation.json", json.dumps(report).encode())
    summary = {key: report[key] for key in ("mean_return", "std_return")}
    for name in ("policy.onnx", "policy.f64.onnx"):
        change_onnx(bundle, name, lambda model: set_evaluation(model, summary, report))


def set_evaluation(model, summary, report):
    for entry in model.metadata_props:
        if entry.key == "evaluation":
            own = json.loads(entry.value) | summary | {"n_episodes": len(report["returns"])}
            entry.value = json.dumps(own)


def change_onnx(bundle, name, change):
    model = onnx.load_from_string((bundle / name).read_bytes())
    change(model)
    put(bundle, name, model.SerializeToString(deterministic=True))


def returns_of(bundle):
    return json.loads((bundle / "evaluation.json").read_text())["returns"]


def refusal(bundle, capsys, *options):
    assert verify.main([str(bundle), "-P", *options]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_an_honest_bundle(bundle, capsys):
    assert verify.main([str(bundle), "-P"]) == 0
    captured = capsys.readouterr()
    returns = returns_of(bundle)
    assert captured.out == (
        f"verified bit for bit: npg {ENV}, {N} episodes, return {np.mean(returns):.2f} ± "
        f"{np.std(returns):.2f}\n"
    )
    assert captured.err.startswith("ONNX files are those of the weights; float32 differs by ")
    assert captured.err.endswith(f" on {200 * N} visited observations\n")


def test_json(bundle, capsys):
    assert verify.main([str(bundle), "--episodes", "3", "--json", "-P"]) == 0
    report = json.loads(capsys.readouterr().out)
    first = returns_of(bundle)[:3]
    assert report["verified"] is True
    assert report["equal"] == "bit for bit"
    assert report["n_episodes"] == 3
    assert report["mean_return"] == report["published_mean_return"] == np.mean(first)
    assert report["differences"] == []
    assert report["played_with"] == "policy.f64.onnx"
    assert report["onnx"]["is_rebuilt"] is True
    assert 0 < report["onnx"]["float32_error"] < 1e-5
    assert report["onnx"]["n_observations"] == 600
    change_evaluation(bundle, returns=[0.0] * N)
    assert verify.main([str(bundle), "--json", "-P"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["verified"] is False
    assert "Episode 0" in report["reason"]


def test_progress_is_shown(bundle, capsys):
    assert verify.main([str(bundle), "--episodes", "2"]) == 0
    assert "verifying: 100%" in capsys.readouterr().err


# --- the evaluation ---------------------------------------------------------------------------


def test_one_return_that_was_improved(bundle, capsys):
    returns = returns_of(bundle)
    returns[4] += 1e-9
    change_evaluation(bundle, returns=returns)
    message = refusal(bundle, capsys)
    assert f"Episode 4 (seed {2**31 + 4}) is published with return {returns[4]!r} in 200 steps" in (
        message
    )
    assert verify.main([str(bundle), "-P", "--episodes", "4"]) == 0  # it is not among the first


def test_a_length_that_was_changed(bundle, capsys):
    change_evaluation(bundle, lengths=[200] * (N - 1) + [199])
    assert f"Episode {N - 1} " in refusal(bundle, capsys)


def test_a_better_mean_than_its_episodes_have(bundle, capsys):
    change_evaluation(bundle, mean_return=-1.0)
    assert "says mean_return -1.0, its own episodes give -" in refusal(bundle, capsys)


def test_other_seeds(bundle, capsys):
    """Episodes chosen for their starts are still real; the same one twice is not."""
    change_evaluation(bundle, seeds=[2**31] * N)
    assert "counts an episode twice" in refusal(bundle, capsys)
    change_evaluation(bundle, seeds=list(range(2**31 + 50, 2**31 + 50 + N)))
    assert "Episode 0 " in refusal(bundle, capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"returns": [1.0]}, f"has {N} seeds, 1 returns and {N} lengths"),
        ({"env_id": "CartPole-v1"}, "says env_id 'CartPole-v1', the bundle's agent has 'Pendulum"),
        ({"env_kwargs": {"g": 1.0}}, "says env_kwargs {'g': 1.0}"),
        ({"algo": "trpo"}, "says algo 'trpo', the bundle's agent has 'npg'"),
        ({"deterministic": False}, "says deterministic False"),
        ({"played_with": "magic"}, "played_with: Unknown name 'magic'"),
        ({"lengths": [0] * N}, "lengths is 0"),
        ({"seeds": ["0"] * N}, "seeds is '0'"),
        ({"versions": []}, "versions is []"),
    ],
)
def test_evaluations_that_contradict_the_bundle(bundle, capsys, changes, message):
    change_evaluation(bundle, **changes)
    assert message in refusal(bundle, capsys)


def test_evaluations_that_are_no_json(bundle, capsys):
    put(bundle, "evaluation.json", b'{"returns": NaN}')
    assert "evaluation.json holds NaN" in refusal(bundle, capsys)
    put(bundle, "evaluation.json", b"{}")
    assert "lacks the key 'seeds'" in refusal(bundle, capsys)


def test_digests_are_checked_first(bundle, capsys):
    report = (bundle / "evaluation.json").read_text().replace(": true", ": false")
    (bundle / "evaluation.json").write_text(report)
    assert "it was changed or damaged" in refusal(bundle, capsys)


def test_what_has_no_evaluation(bundle, capsys):
    document = json.loads((bundle / "agent.json").read_text())
    del document["files"]["evaluation.json"]
    (bundle / "agent.json").write_text(json.dumps(document))
    (bundle / "evaluation.json").unlink()
    assert "has no evaluation.json to repeat" in refusal(bundle, capsys)
    assert "is a single file" in refusal(bundle / "policy.onnx", capsys)
    assert "Unknown agent 'nowhere'" in refusal("nowhere", capsys)
    assert "--episodes 0" in refusal(bundle, capsys, "--episodes", "0")


# --- other versions ---------------------------------------------------------------------------


def as_from(bundle, **versions):
    report = json.loads((bundle / "evaluation.json").read_text())
    change_evaluation(bundle, versions=report["versions"] | versions)


def test_other_versions_may_give_the_same(bundle, capsys):
    as_from(bundle, mujoco="3.9.0")
    assert verify.main([str(bundle), "-P"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("verified bit for bit: ")
    assert "not as published: mujoco 3.9.0 there, " in captured.err


def test_other_versions_may_give_the_same_within_the_spread(bundle, capsys):
    as_from(bundle, gymnasium="1.2.0")
    returns = returns_of(bundle)
    moved = [value + 0.1 * np.std(returns) for value in returns]
    change_evaluation(bundle, returns=moved)
    assert verify.main([str(bundle), "-P"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        f"verified within the spread, not bit for bit: npg {ENV}, {N} episodes, return "
        f"{np.mean(returns):.2f} ± {np.std(returns):.2f} (published {np.mean(moved):.2f})\n"
    )
    assert "gymnasium 1.2.0 there" in captured.err
    moved = [value + 4 * np.std(returns) for value in returns]
    change_evaluation(bundle, returns=moved)
    message = refusal(bundle, capsys)
    assert f"comes out as {np.mean(returns):.2f}" in message
    assert "more than the differences explain (gymnasium 1.2.0 there, " in message


def test_spread_by_hand():
    """Two standard deviations of 1 over 100 episodes: a standard error of √0.02."""
    old = Evaluation(list(range(100)), [1.0, 3.0] * 50, [1] * 100)
    near, far = (
        Evaluation(old.seeds, [value + shift for value in old.returns], old.lengths)
        for shift in (2.99 * 0.02**0.5, 3.01 * 0.02**0.5)
    )
    verification._compare_episodes(old, near, ("mujoco",))
    with pytest.raises(VerificationError, match=r"3\.0 standard errors away"):
        verification._compare_episodes(old, far, ("mujoco",))
    with pytest.raises(VerificationError, match="with the same versions"):
        verification._compare_episodes(old, near, ())


# --- weights and ONNX files -------------------------------------------------------------------


def nudge(model, size=1e-3):
    weight = next(w for w in model.graph.initializer if len(w.dims) == 2)
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] += size
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def test_an_onnx_file_of_other_weights(bundle, capsys):
    change_onnx(bundle, "policy.onnx", nudge)
    message = refusal(bundle, capsys)
    assert "policy.onnx does not act as policy.safetensors does" in message
    assert f"on {200 * N} visited observations the difference is" in message


def test_the_float64_file_of_other_weights(bundle, capsys):
    """The episodes are those of the file, so only the weights give it away."""
    change_onnx(bundle, "policy.f64.onnx", lambda model: nudge(model, 1e-6))
    played = verification.evaluate(
        verification._actor(Bundle.open(bundle), verification.read_published(Bundle.open(bundle))),
        ENV,
        seeds=json.loads((bundle / "evaluation.json").read_text())["seeds"],
        n_envs=1,
    )
    change_evaluation(bundle, returns=played.returns, lengths=played.lengths)
    message = refusal(bundle, capsys)
    assert "policy.f64.onnx does not act as policy.safetensors does" in message


def test_other_weights(bundle, capsys):
    tensors = safetensors.numpy.load((bundle / "policy.safetensors").read_bytes())
    name = next(name for name in tensors if name.startswith("mlp_extractor.policy_net"))
    tensors[name] = tensors[name] * np.float32(1.001)
    put(bundle, "policy.safetensors", safetensors.numpy.save(tensors))
    assert "does not act as policy.safetensors does" in refusal(bundle, capsys)


def test_other_statistics(bundle, capsys):
    arrays = safetensors.numpy.load((bundle / "normalizer.safetensors").read_bytes())
    arrays["obs.mean"] = arrays["obs.mean"] + 0.1
    put(bundle, "normalizer.safetensors", safetensors.numpy.save(arrays))
    assert "does not act as policy.safetensors does" in refusal(bundle, capsys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("action_names", '["brake"]'),
        ("control_dt", "0.5"),
        ("env_id", "CartPole-v1"),
        ("evaluation", '{"mean_return": 0.0}'),
        ("note", "best agent ever"),
    ],
)
def test_an_onnx_file_that_says_something_else(bundle, capsys, key, value):
    def say(model):
        for entry in model.metadata_props:
            if entry.key == key:
                entry.value = value
                return
        model.metadata_props.add(key=key, value=value)

    change_onnx(bundle, "policy.onnx", say)
    message = refusal(bundle, capsys)
    assert f"policy.onnx says {key} {value}, the bundle's agent has " in message


def test_a_graph_in_another_form_is_compared_by_its_actions(bundle, capsys):
    """As another version of this project may write it."""

    def rename(model):
        model.graph.name = "another"

    change_onnx(bundle, "policy.f64.onnx", rename)
    assert verify.main([str(bundle), "-P"]) == 0
    assert "ONNX files act as the weights do" in capsys.readouterr().err


def test_an_unsafe_onnx_file(bundle, capsys):
    def outside(model):
        weight = model.graph.initializer[0]
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="/etc/passwd")

    change_onnx(bundle, "policy.f64.onnx", outside)
    assert "weights in another file" in refusal(bundle, capsys)
