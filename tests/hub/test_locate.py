"""One string for every kind of agent."""

import pytest

from agents.errors import (
    BundleError,
    ConfigError,
    HubUnreachable,
    RunFolderError,
    UnknownName,
)
from hub import locate as module
from hub.locate import hub_name, is_guest_folder, locate, onnx_path, published_agents


@pytest.fixture
def published(tmp_path, monkeypatch):
    folder = tmp_path / "pretrained"
    for name in ("npg-Walker2d-v4", "trpo-Hopper-v4"):
        make_bundle(folder / name)
    monkeypatch.setattr(module, "PUBLISHED", folder)
    return folder


def make_bundle(folder):
    folder.mkdir(parents=True)
    for name in ("agent.json", "policy.onnx", "policy.f64.onnx", "config.yml"):
        (folder / name).touch()
    return folder


def make_run(folder):
    (folder / "Walker2d-v4").mkdir(parents=True)
    (folder / "Walker2d-v4" / "config.yml").touch()
    return folder


def test_files(tmp_path):
    path = tmp_path / "agent.onnx"
    path.touch()
    found = locate(str(path))
    assert (found.kind, found.path, found.bundle) == ("onnx", path, None)
    assert onnx_path(path, float64=True) == path
    with pytest.raises(ConfigError, match="is a single file without episodes or weights"):
        found.require_bundle()


def test_bundles(tmp_path):
    bundle = make_bundle(tmp_path / "any name")
    found = locate(bundle)
    assert (found.kind, found.path, found.bundle) == ("bundle", bundle, bundle)
    assert found.require_bundle() == bundle
    assert onnx_path(bundle) == bundle / "policy.onnx"
    assert onnx_path(str(bundle), float64=True) == bundle / "policy.f64.onnx"
    (bundle / "policy.f64.onnx").unlink()
    with pytest.raises(BundleError, match=r"has no policy.f64.onnx. Type: python -m hub.export"):
        onnx_path(bundle, float64=True)


def test_runs(tmp_path):
    run = make_run(tmp_path / "npg" / "Walker2d-v4_1")
    assert (locate(run).kind, locate(run).bundle) == ("run", None)
    with pytest.raises(RunFolderError, match=rf"zoo.train --resume {run}"):
        onnx_path(run)
    bundle = make_bundle(run / "bundle")
    assert (locate(run).kind, locate(run).bundle) == ("run", bundle)
    assert onnx_path(run) == bundle / "policy.onnx"


def test_a_folder_whose_only_configuration_is_a_bundles_is_no_run(tmp_path):
    make_bundle(tmp_path / "bundle")
    with pytest.raises(RunFolderError, match=r"neither ENV/config.yml nor agent.json"):
        locate(tmp_path)


def test_names(published):
    assert published_agents() == ["npg-Walker2d-v4", "trpo-Hopper-v4"]
    found = locate("npg-Walker2d-v4")
    assert (found.kind, found.path) == ("bundle", published / "npg-Walker2d-v4")
    assert onnx_path("trpo-Hopper-v4", float64=True).name == "policy.f64.onnx"


@pytest.mark.parametrize("name", ["npg-walker2d-v4", "npg-Waker2d-v4", "npg_Walker2d-v4"])
@pytest.mark.usefixtures("published")
def test_mistyped_names(name):
    with pytest.raises(UnknownName, match=r"Did you mean 'npg-Walker2d-v4'\?") as caught:
        locate(name)
    assert "Known: npg-Walker2d-v4, trpo-Hopper-v4. Give a run folder" in str(caught.value)


def test_a_folder_here_comes_before_a_published_name(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "npg-Walker2d-v4")
    assert locate("npg-Walker2d-v4").path.resolve() == (tmp_path / "npg-Walker2d-v4").resolve()


@pytest.mark.parametrize("name", ["..", ".", "../pretrained", "", "../x/y"])
def test_a_name_leads_nowhere_else(published, name, monkeypatch, tmp_path):
    here = (
        tmp_path / "outer" / "here"
    )  # beside the folders of other tests, ".." may be a run folder
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    make_bundle(published.parent / "x")
    with pytest.raises(RunFolderError):
        locate(name)


def test_mistyped_paths(tmp_path):
    run = make_run(tmp_path / "npg" / "Walker2d-v4_1")
    with pytest.raises(RunFolderError, match=rf"There is no folder .*Did you mean '{run}'\?"):
        locate(tmp_path / "npg" / "Walker2d-v4_11")
    (run / "policy.onnx").touch()
    with pytest.raises(BundleError, match=rf"no file .*Did you mean '{run}/policy.onnx'\?"):
        locate(run / "policyy.onnx")
    with pytest.raises(RunFolderError, match="There is no folder"):
        locate(tmp_path / "nowhere" / "at" / "all")


@pytest.mark.parametrize("agent", ["ada/npg-Walker2d-v4", "ada/npg-Walker2d-v4@v1.0"])
def test_agents_of_the_hub_are_asked_for(agent):
    with pytest.raises(HubUnreachable, match="cannot be reached, and ada/npg-Walker2d-v4 is not"):
        locate(agent)
    assert str(hub_name(agent)) == agent


def test_a_mistyped_path_is_no_agent_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs" / "npg").mkdir(parents=True)
    assert hub_name("logs/nqg") is None
    with pytest.raises(RunFolderError, match=r"no folder 'logs/nqg'\. Did you mean 'logs/npg'"):
        locate("logs/nqg")
    assert str(hub_name("log/npg")) == "log/npg"


@pytest.mark.usefixtures("published")  # not the checkout's, where more agents appear
def test_names_of_an_organisation_of_ones_own(monkeypatch):
    assert hub_name("npg-Walker2d-v4") is None
    monkeypatch.setenv("NATURAL_ZOO_ORG", "my-lab")
    assert str(hub_name("npg-Ant-v4")) == "my-lab/npg-Ant-v4"
    with pytest.raises(HubUnreachable, match="my-lab/npg-Ant-v4 is not"):
        locate("npg-Ant-v4")


def test_runs_of_rl_zoo_are_told_apart(tmp_path):
    run = make_run(tmp_path / "ppo" / "Walker2d-v4_1")
    (run / "Walker2d-v4.zip").touch()
    assert locate(run).kind == "run"
    assert not is_guest_folder(run)
    (run / "Walker2d-v4" / "args.yml").touch()
    assert is_guest_folder(run)
    with pytest.raises(BundleError, match=r"python -m hub\.convert"):
        locate(run)
