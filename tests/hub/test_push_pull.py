"""Push, pull, list and load: over HTTP and through a folder, with a small real agent."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import hub
from agents import NPG
from agents.errors import (
    AccessDenied,
    AgentNotFound,
    BundleError,
    ConfigError,
    HubError,
    HubUnreachable,
    RunFolderError,
)
from hub import convert, pull, push
from hub import list as list_command
from hub.agent_name import parse_agent_name
from hub.bundle import Bundle
from hub.fetch import cache_folder, fetch_agent, fetch_onnx
from hub.front_matter import read_front_matter
from hub.publishing import Wishes


@pytest.fixture(scope="module")
def bundle(maker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = maker.bundle(tmp_path_factory.mktemp("bundles") / "agent").path
    return path


@pytest.fixture
def org(at_hub: Any, request: pytest.FixtureRequest) -> str:
    """A name for the test's repository."""
    name = request.node.name.removeprefix("test_").partition("[")[0].replace("_", "-")[:60]
    return f"zoo-lab/{name.strip('-')}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATURAL_ZOO_CACHE", str(tmp_path / "zoo-cache"))


def run(module: Any, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command; returns the last line of its standard output."""
    code = module.main(list(arguments))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out.strip().splitlines()[-1] if captured.out.strip() else ""


def fails(module: Any, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that fails with a known error; returns its one line."""
    assert module.main(list(arguments)) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()[-1:]
    assert line.startswith("error: ")
    assert "Traceback" not in captured.err
    return line


# ---------------------------------------------------------------- there and back


def test_push_and_pull_over_http(
    at_hub: Any, org: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    pinned = run(push, capsys, str(bundle), org)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before  # left as it is
    repo, _, commit = pinned.partition("@")
    assert repo == org
    info = at_hub.api().model_info(org)
    assert info.sha == commit
    assert [c.title for c in at_hub.api().list_repo_commits(org)] == [
        "Push NPG on Pendulum-v1: return -1200.0 ± 100.0",
        "initial commit",
    ]
    assert {sibling.rfilename for sibling in info.siblings} == {
        *(".gitattributes", "README.md", "agent.json", "command.txt", "config.yml", "curve.csv"),
        *("curve.png", "evaluation.json", "normalizer.safetensors", "optimizer.safetensors"),
        *("policy.f64.onnx", "policy.onnx", "policy.safetensors"),
    }
    assert info.pipeline_tag == "reinforcement-learning"
    assert info.model_index[0]["results"][0]["metrics"][0]["value"] == "-1200.00 +/- 100.00"
    place = Path(run(pull, capsys, pinned))
    pulled = Bundle.open(place)
    for name in ("policy.safetensors", "policy.onnx", "policy.f64.onnx", "evaluation.json"):
        assert (place / name).read_bytes() == before[name]
    assert pulled.read("command.txt").decode() == (
        "python -m zoo.train --algo npg --env Pendulum-v1 --seed 0\n"
    )
    assert f'hub.load("{org}")' in (place / "README.md").read_text()
    assert run(push, capsys, str(bundle), org) == pinned  # nothing has changed


def test_the_same_agent_comes_back(maker: Any, at_hub: Any, org: str, bundle: Path) -> None:
    pinned = push.push(bundle, org)
    original, env = maker.agent()
    model = hub.load(pinned)
    assert type(model) is NPG
    wrapper = model.get_vec_normalize_env()
    assert wrapper is not None
    assert (wrapper.training, wrapper.norm_reward) == (False, False)
    policies = [hub.OnnxPolicy(pinned), hub.OnnxPolicy(pinned, float64=True)]
    for observation in np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32):
        expected, _ = original.predict(env.normalize_obs(observation), deterministic=True)
        found, _ = model.predict(wrapper.normalize_obs(observation), deterministic=True)
        np.testing.assert_array_equal(found, expected)
        for policy, tolerance in zip(policies, (1e-5, 1e-6), strict=True):
            np.testing.assert_allclose(policy(observation), expected, atol=tolerance)
    before = model.policy.state_dict()["mlp_extractor.policy_net.0.weight"].clone()
    trained = hub.load(pinned, training=True)
    assert trained.get_vec_normalize_env().training  # type: ignore[union-attr]
    trained.learn(64, reset_num_timesteps=False)
    assert trained.num_timesteps == 128
    after = trained.policy.state_dict()["mlp_extractor.policy_net.0.weight"]
    assert not torch.equal(before, after)
    assert hub.load(pinned, env=None).get_env() is None


def test_only_what_is_needed_is_fetched(at_hub: Any, org: str, bundle: Path) -> None:
    push.push(bundle, org)
    name = parse_agent_name(org)
    assert name is not None
    fetched = fetch_onnx(name)
    assert [p.name for p in cache_folder().rglob("*") if p.is_file()] == ["policy.onnx"]
    from huggingface_hub import constants

    blobs = list(Path(constants.HF_HUB_CACHE).rglob("blobs/*"))
    assert [blob.stat().st_size for blob in blobs] == [fetched.path.stat().st_size]


@pytest.mark.slow
def test_revisions(maker: Any, at_hub: Any, org: str, bundle: Path, tmp_path: Path) -> None:
    first = push.push(bundle, org)
    other = maker.bundle(tmp_path / "other", seed=1).path
    branch = push.push(other, org, revision="other-seed")
    weights = {
        name: Bundle.open(fetch_agent(parsed).path).read("policy.safetensors")
        for name in (org, first, branch, f"{org}@other-seed")
        if (parsed := parse_agent_name(name)) is not None
    }
    assert weights[org] == weights[first] == (bundle / "policy.safetensors").read_bytes()
    assert weights[branch] == weights[f"{org}@other-seed"]
    assert weights[branch] == (other / "policy.safetensors").read_bytes() != weights[org]


def test_folder_hub_has_the_same_verbs(
    maker: Any, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "srv" / "agents"
    pinned = run(push, capsys, str(bundle), f"folder:{root}")
    assert pinned == f"folder:{root}/npg-Pendulum-v1@1"
    assert run(push, capsys, str(bundle), f"folder:{root}") == pinned
    other = maker.bundle(tmp_path / "other", seed=1).path
    assert run(push, capsys, str(other), f"folder:{root}/npg-Pendulum-v1").endswith("@2")
    assert run(push, capsys, str(other), f"folder:{root}", "--name", "lab/mine") == (
        f"folder:{root}/lab/mine@1"
    )
    latest = fetch_agent(parse_agent_name(f"folder:{root}/npg-Pendulum-v1"))  # type: ignore[arg-type]
    assert Bundle.open(latest.path).read("policy.safetensors") == (
        (other / "policy.safetensors").read_bytes()
    )
    model = hub.load(pinned)
    expected, env = maker.agent()
    observation = np.array([0.5, 0.5, 1.0], np.float32)
    np.testing.assert_array_equal(
        model.predict(env.normalize_obs(observation), deterministic=True)[0],
        expected.predict(env.normalize_obs(observation), deterministic=True)[0],
    )
    assert hub.OnnxPolicy(pinned)(observation).shape == (1,)
    line = fails(push, capsys, str(bundle), f"folder:{root}", "--private")
    assert "--private is for the Hub" in line
    listed = json.loads("\n".join(_lines(capsys, list_command, f"folder:{root}", "--json")))
    assert [(a["name"], a["algo"], a["env"], a["mean_return"], a["kind"]) for a in listed] == [
        (f"folder:{root}/{name}", "npg", "Pendulum-v1", "-1200.00 +/- 100.00", "bundle")
        for name in ("lab/mine", "npg-Pendulum-v1")
    ]
    line = fails(pull, capsys, f"folder:{root}")
    assert "is a hub; give one of its agents" in line
    assert "It has: lab/mine, npg-Pendulum-v1." in line


def _lines(capsys: pytest.CaptureFixture[str], module: Any, *arguments: str) -> list[str]:
    assert module.main(list(arguments)) == 0
    return capsys.readouterr().out.splitlines()


def test_eight_readers_at_once(bundle: Path, tmp_path: Path) -> None:
    """All find a whole bundle in a cache that none of them has filled yet."""
    pinned = push.push(bundle, f"folder:{tmp_path / 'agents'}")
    name, found, start = parse_agent_name(pinned), [], threading.Barrier(8)
    assert name is not None

    def read() -> None:
        start.wait()
        found.append(Bundle.open(fetch_agent(name).path).read("policy.onnx"))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(bundle / "policy.onnx").read_bytes()] * 8


@pytest.mark.slow
def test_pull_to_a_folder(
    at_hub: Any, org: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned = push.push(bundle, org)
    output = tmp_path / "walker"
    for _ in range(2):  # the second replaces the first
        assert run(pull, capsys, org, "-o", str(output)) == str(output)
        assert json.loads((output / ".source.json").read_text()) == {"agent": pinned}
        assert Bundle.open(output).manifest.algorithm == "npg"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert "thesis.tex" in fails(pull, capsys, org, "-o", str(tmp_path / "mine"))
    damaged = cache_folder() / org.replace("/", "--") / pinned.partition("@")[2] / "bundle"
    content = (damaged / "policy.safetensors").read_bytes()
    (damaged / "policy.safetensors").unlink()
    (damaged / "policy.safetensors").write_bytes(content[:-1] + b"\xff")
    with pytest.raises(BundleError, match="changed or damaged"):
        hub.load(org)
    run(pull, capsys, org, "--force")
    assert hub.load(org).num_timesteps == 64


@pytest.mark.slow
def test_list_over_http(
    at_hub: Any, org: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push.push(bundle, org)
    card = (
        "---\nlibrary_name: stable-baselines3\n"
        "tags: [Ant-v3, reinforcement-learning, stable-baselines3]\n"
        "model-index: [{name: TQC, results: [{task: {type: x}, dataset: {name: Ant-v3, type: x},"
        " metrics: [{type: mean_reward, value: 1.00 +/- 2.00}]}]}]\n---\n"
    )
    at_hub.api().create_repo("zoo-lab/tqc-Ant-v3", exist_ok=True)
    at_hub.api().upload_file(
        path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="zoo-lab/tqc-Ant-v3"
    )

    def names(*arguments: str) -> list[tuple[str, str, str]]:
        found = json.loads("\n".join(_lines(capsys, list_command, "--json", *arguments)))
        return [(a["name"], a["algo"], a["kind"]) for a in found]

    ours, guest = (org, "npg", "bundle"), ("zoo-lab/tqc-Ant-v3", "tqc", "sb3")
    assert ours in names()
    assert guest not in names()
    assert {ours, guest} <= set(names("--org", "zoo-lab"))
    assert names("--org", "zoo-lab", "--env", "Ant-v3") == [guest]
    assert guest not in names("--org", "zoo-lab", "--algo", "npg")
    assert names("--org", "ada", "--algo", "sac") == []
    table = _lines(capsys, list_command, "--org", "zoo-lab", "--env", "Ant-v3")
    assert table[0].split()[:3] == ["zoo-lab/tqc-Ant-v3", "tqc", "Ant-v3"]
    assert "is no hub. Type: --org zoo-lab" in fails(list_command, capsys, "zoo-lab")
    wrong = fails(list_command, capsys, "--org", "folder:/srv/agents")
    assert "Type: hub.list folder:/srv/agents" in wrong
    pull.pull(org)
    assert [name.partition("@")[0] for name, _, _ in names("--cached")] == [org]


@pytest.mark.slow
def test_offline_from_the_cache(
    at_hub: Any, org: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push.push(bundle, org)
    hub.load(org)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub.load(org).num_timesteps == 64
    assert hub.OnnxPolicy(org).env_id == "Pendulum-v1"  # from the files of the whole agent
    with pytest.raises(HubUnreachable, match="cannot be reached, and zoo-lab/other is not"):
        hub.load("zoo-lab/other")
    with pytest.raises(HubUnreachable, match="Connect and try again"):
        push.push(bundle, org)


# ---------------------------------------------------------------- what goes wrong


def test_errors_of_pull_name_the_reason(
    at_hub: Any, org: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = at_hub.api()
    api.create_repo(org, visibility="private")
    with pytest.raises(AgentNotFound, match=r"holds no agent.*interrupted"):
        hub.load(org)
    with pytest.raises(AgentNotFound, match="holds no agent"):
        hub.OnnxPolicy(org)
    files = {"agent.json": bundle / "agent.json", "policy.onnx": bundle / "policy.onnx"}
    for name, path in files.items():
        api.upload_file(path_or_fileobj=path, path_in_repo=name, repo_id=org)
    with pytest.raises(HubError, match=r"uploaded in part: policy.safetensors is missing"):
        hub.load(org)
    with pytest.raises(BundleError, match=r"has no policy\.f64\.onnx. Type: python -m hub.export"):
        hub.OnnxPolicy(org, float64=True)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "another"))
    with pytest.raises(AgentNotFound, match="private and the token"):
        pull.pull(org)
    with pytest.raises(ConfigError, match="names no agent of a hub"):
        pull.pull("npg-Walker2d-v4")


def test_a_stranger_cannot_push_a_surprise(at_hub: Any, org: str, bundle: Path) -> None:
    """What is not listed in agent.json does not reach the bundle; what is, is checked."""
    push.push(bundle, org)
    api = at_hub.api()
    api.upload_file(path_or_fileobj=b"import os", path_in_repo="evil.py", repo_id=org)
    assert not (pull.pull(org).path / "evil.py").exists()
    api.upload_file(path_or_fileobj=b"\0other", path_in_repo="policy.onnx", repo_id=org)
    with pytest.raises(BundleError, match="changed or damaged"):
        hub.load(org)
    api.upload_file(path_or_fileobj=b"[" * 100_000, path_in_repo="agent.json", repo_id=org)
    with pytest.raises(BundleError, match=r"agent\.json is nested deeper"):
        hub.load(org)


def test_errors_of_push_come_before_the_work(
    at_hub: Any,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "There is no folder" in fails(push, capsys, str(tmp_path / "nothing"), "zoo-lab")
    for target in ("zoo-lab/a/b", "https://x/y", "zoo-lab/x@v1", "folder:"):
        line = fails(push, capsys, str(bundle), target)
        assert "no place to push to" in line or "names no folder" in line
    with pytest.raises(AccessDenied, match="namespace of yours"):
        push.push(bundle, "bob/agent")
    run_folder = tmp_path / "Pendulum-v1_1"
    (run_folder / "Pendulum-v1").mkdir(parents=True)
    (run_folder / "Pendulum-v1" / "config.yml").touch()
    with pytest.raises(RunFolderError, match=r"has no bundle/ yet"):
        push.push(run_folder, "zoo-lab")
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in fails(push, capsys, str(bundle), "zoo-lab")


@pytest.mark.slow
def test_traces_of_this_machine_stop_the_push(
    maker: Any, at_hub: Any, org: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_dump({**maker.config, "env_kwargs": {"xml_file": f"{Path.home()}/x.xml"}})
    leaking = maker.bundle(tmp_path / "leaking", **{"config.yml": config})
    with pytest.raises(HubError, match=r"^config\.yml would tell about this machine"):
        push.push(leaking.path, org)
    with pytest.raises(AgentNotFound):
        hub.load(org)


def test_nothing_private_is_pushed(
    at_hub: Any, org: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of the repository is searched, by other means than the push itself used."""
    monkeypatch.setenv("USER", "adalovelace")
    monkeypatch.setenv("LOGNAME", "adalovelace")
    push.push(bundle, org, wishes=Wishes(rl_zoo=True))
    snapshot = Path(at_hub.api().snapshot_download(org, cache_dir=tmp_path / "cache"))
    texts = [str(Path.home()), os.getcwd(), "hf_ada", "adalovelace", "/home/ada", "127.0.0.1"]
    files = [path for path in snapshot.rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        content = path.read_bytes()
        for text in texts:
            assert text.encode() not in content, (path.name, text)


@pytest.mark.slow
def test_eight_writers_to_one_folder_and_one_repository(
    maker: Any, at_hub: Any, org: str, bundle: Path, tmp_path: Path
) -> None:
    """Each pushes an agent of its own; whatever is pulled is one of them, whole."""
    bundles = [maker.bundle(tmp_path / f"agent{i}", seed=i).path for i in range(8)]
    for target in (org, f"folder:{tmp_path / 'agents'}"):
        pinned: dict[int, str] = {}

        def write(i: int, target: str = target, pinned: dict[int, str] = pinned) -> None:
            pinned[i] = push.push(bundles[i], target)

        threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(pinned.values())) == 8
        for i, name in pinned.items():
            parsed = parse_agent_name(name)
            assert parsed is not None
            found = Bundle.open(fetch_agent(parsed).path)
            assert found.read("policy.onnx") == (bundles[i] / "policy.onnx").read_bytes()
            assert found.read("policy.safetensors") == (
                (bundles[i] / "policy.safetensors").read_bytes()
            )


def test_commands_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    for module in (push, pull, list_command, convert):
        with pytest.raises(SystemExit) as exit_:
            module.main(["--help"])
        assert exit_.value.code == 0
        assert "examples:" in capsys.readouterr().out
    assert push.main([]) == 2
    assert pull.main([]) == 2


# ---------------------------------------------------------------- the ecosystem


def test_push_for_rl_zoo(at_hub: Any, org: str, bundle: Path) -> None:
    push.push(bundle, org, wishes=Wishes(rl_zoo=True, license="mit"))
    names = set(at_hub.api().list_repo_files(org))
    assert {
        *("trpo-Pendulum-v1.zip", "vec_normalize.pkl", "args.yml", "config.yml"),
        *("env_kwargs.yml", "results.json", "train_eval_metrics.zip"),
    } <= names
    assert type(hub.load(org)) is NPG  # the bundle comes first
    assert read_front_matter((pull.pull(org).path / "README.md").read_text())["license"] == "mit"
    push.push(bundle, org)  # what belonged to the other push goes with it
    assert not {"trpo-Pendulum-v1.zip", "vec_normalize.pkl"} & set(
        at_hub.api().list_repo_files(org)
    )


def test_agents_of_others(
    maker: Any,
    at_hub: Any,
    org: str,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A repository as RL Zoo makes it: loaded, and converted to a bundle that acts the same."""
    from hub.guests.rl_zoo_export import rl_zoo_files
    from hub.vec_normalize import normalizer_of

    model, env = maker.agent()
    files = rl_zoo_files(
        model,
        normalizer_of(env),
        algo="npg",
        env_id="Pendulum-v1",
        env_kwargs={},
        evaluation=maker.evaluation,
    )
    files["config.yml"] = yaml.dump({"normalize": True, "n_steps": 64}).encode()
    at_hub.api().create_repo(org)
    for name, content in files.items():
        at_hub.api().upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=org)
    loaded = hub.load(org)
    assert type(loaded).__module__.startswith("sb3_contrib")
    output = tmp_path / "converted"
    assert run(convert, capsys, org, "-o", str(output)) == str(output)
    policy = hub.OnnxPolicy(output, float64=True)
    twin = hub.load(output)
    wrapper = loaded.get_vec_normalize_env()
    assert wrapper is not None
    for observation in np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32):
        expected, _ = model.predict(env.normalize_obs(observation), deterministic=True)
        for agent in (loaded, twin):
            found, _ = agent.predict(wrapper.normalize_obs(observation), deterministic=True)
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(policy(observation), expected, atol=1e-6)
    line = fails(convert, capsys, str(bundle), "-o", str(tmp_path / "again"))
    assert "holds no final agent of Stable-Baselines3" in line
    with pytest.raises(BundleError, match=r"without policy\.onnx\. Type: python -m hub\.convert"):
        hub.OnnxPolicy(org)


def test_a_folder_of_rl_zoo_and_an_archive(tmp_path: Path, bundle: Path) -> None:
    archive = tmp_path / "agent.zip"
    from stable_baselines3 import A2C

    a2c = A2C("MlpPolicy", "Pendulum-v1", seed=0)
    a2c.save(archive)
    loaded = hub.load(archive)
    assert type(loaded) is A2C
    assert loaded.get_env() is None  # nothing says what it was trained on
    observation = np.array([0.5, 0.5, 1.0], np.float32)
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0],
        a2c.predict(observation, deterministic=True)[0],
    )
    converted = convert.convert(archive, tmp_path / "bundle", env_id="Pendulum-v1")
    assert converted.manifest.library == "stable-baselines3"
    with pytest.raises(ConfigError, match=r"Nothing in .* says which environment"):
        convert.convert(archive, tmp_path / "bundle2")
    with pytest.raises(ConfigError, match="does not fit CartPole-v1"):
        convert.convert(archive, tmp_path / "bundle3", env_id="CartPole-v1")
    with pytest.raises(ConfigError, match=r'Type: hub\.OnnxPolicy\("'):
        hub.load(bundle / "policy.onnx")


def test_an_environment_of_a_stranger_is_not_imported(tmp_path: Path) -> None:
    from stable_baselines3 import A2C

    marker = tmp_path / "ran"
    (tmp_path / "evil_module.py").write_text(f"import os; os.mkdir({str(marker)!r})")
    folder = tmp_path / "run"
    (folder / "X-v0").mkdir(parents=True)
    A2C("MlpPolicy", "Pendulum-v1", seed=0).save(folder / "X-v0.zip")
    (folder / "X-v0" / "args.yml").write_text(
        "algo: a2c\nenv: evil_module:X-v0\nenv_kwargs: null\n"
    )
    (folder / "X-v0" / "config.yml").write_text("normalize: false\n")
    assert hub.load(folder).get_env() is None
    with pytest.raises(ConfigError, match="If you trust it, type: --gym-packages evil_module"):
        convert.convert(folder, tmp_path / "bundle")
    assert not marker.exists()


def test_starting_is_fast() -> None:
    """Neither torch nor huggingface_hub is imported for a command that stays at home."""
    import subprocess
    import sys

    code = (
        "import sys, hub.list, hub.pull, hub.fetch\n"
        "print([name for name in ('torch', 'huggingface_hub', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
