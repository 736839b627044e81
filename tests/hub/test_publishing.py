"""What a push adds to a bundle: other seeds, an evaluation where there is none, the video."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agents.errors import BundleError, HubError
from hub import publishing
from hub.bundle import save_bundle
from hub.publishing import Wishes, prepare_publication
from zoo import verify


@pytest.fixture(scope="module")
def bundle(maker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = maker.bundle(tmp_path_factory.mktemp("bundles") / "agent").path
    return path


def make_run(folder: Path, bundle: Path, config: dict[str, Any], returns: list[float]) -> Path:
    """A run folder as zoo.train leaves it, as far as other seeds are looked for."""
    (folder / "Pendulum-v1").mkdir(parents=True)
    (folder / "Pendulum-v1" / "config.yml").write_text(json.dumps(config))
    (folder / "evaluation.json").write_text(json.dumps({"returns": returns, "num_timesteps": 64}))
    shutil.copytree(bundle, folder / "bundle")
    return folder


def test_runs_that_differ_in_their_seed_only_are_on_the_card(
    maker: Any, bundle: Path, tmp_path: Path
) -> None:
    config = maker.config
    own = make_run(tmp_path / "Pendulum-v1_1", bundle, config, maker.evaluation["returns"])
    make_run(tmp_path / "Pendulum-v1_2", bundle, {**config, "seed": 1}, [-1000.0, -1100.0])
    other = {**config, "seed": 2, "agent": {"n_steps": 128}}
    make_run(tmp_path / "Pendulum-v1_3", bundle, other, [-5.0])
    make_run(tmp_path / "Pendulum-v1_4", bundle, config, [-7.0])  # the same seed once more
    (tmp_path / "notes").mkdir()
    publication = prepare_publication(own / "bundle", Wishes(), run=own)
    card = publication.files["README.md"].decode()
    assert "| 0 (this agent) | 64 | 2 | -1200.0 | 100.0 |" in card
    assert "| 1 | 64 | 2 | -1050.0 | 50.0 |" in card
    assert "Over 2 training seeds: -1125.0 ± 106.1" in card
    alone = prepare_publication(own / "bundle", Wishes()).files["README.md"].decode()
    assert "training seeds:" not in alone


def test_the_same_agent_gives_the_same_files(bundle: Path) -> None:
    wishes = Wishes(rl_zoo=True)
    one, two = (prepare_publication(bundle, wishes).files for _ in range(2))
    assert one == two


def test_what_fails_is_passed_on(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match=r"^zoo\.nothing has failed: .*No module named zoo\.nothing"):
        publishing._command("zoo.nothing", str(bundle), [], Wishes())
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    files = prepare_publication(bundle, Wishes()).files  # without a picture, all the same
    assert "curve.png" not in files
    assert "Learning curve" not in files["README.md"].decode()


def test_rl_zoo_must_not_be_misled(maker: Any, tmp_path: Path) -> None:
    config = json.dumps({**maker.config, "normalize": None})
    odd = maker.bundle(tmp_path / "odd", **{"config.yml": config})
    with pytest.raises(BundleError, match="disagree on 'normalize'"):
        prepare_publication(odd.path, Wishes(rl_zoo=True))


@pytest.mark.slow
def test_an_agent_without_evaluation_is_evaluated(
    maker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a model of one's own is that was saved from Python; anyone can verify it afterwards."""
    model, env = maker.agent()
    bundle = save_bundle(tmp_path / "mine", model, algo="npg", env_id="Pendulum-v1", normalizer=env)
    before = sorted(path.name for path in bundle.path.iterdir())
    publication = prepare_publication(bundle.path, Wishes(episodes=3))
    evaluation = json.loads(publication.files["evaluation.json"])
    assert len(evaluation["returns"]) == 3
    assert evaluation["played_with"] == "policy.f64.onnx"
    assert {"policy.onnx", "policy.f64.onnx"} <= set(publication.files)
    assert b"mean_return" in publication.files["policy.onnx"]
    assert sorted(path.name for path in bundle.path.iterdir()) == before
    (tmp_path / "published").mkdir()
    for name, content in publication.files.items():
        (tmp_path / "published" / name).write_bytes(content)
    assert verify.main([str(tmp_path / "published")]) == 0


@pytest.mark.slow
@pytest.mark.render
def test_the_first_episode_is_filmed(maker: Any, tmp_path: Path) -> None:
    model, env = maker.agent(env_id="InvertedPendulum-v4")
    bundle = save_bundle(
        tmp_path / "mine", model, algo="npg", env_id="InvertedPendulum-v4", normalizer=env
    )
    film = prepare_publication(bundle.path, Wishes(video=True, episodes=1)).files["replay.mp4"]
    assert film[4:8] == b"ftyp"
    assert len(film) > 2000
