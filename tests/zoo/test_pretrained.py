"""The agents in ``pretrained/``: whole, small, the ones of the tables, and found by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hub.agent_name import default_name
from hub.bundle import Bundle
from hub.locate import PUBLISHED, locate, published_agents
from hub.runtime import OnnxPolicy
from zoo import verify
from zoo.campaign.cells import Places
from zoo.campaign.publication import MAX_VIDEO_BYTES, median_result
from zoo.campaign.results import load_results
from zoo.campaign.rows import gather

_MAX_BYTES = 60_000_000
_RESULTS = Path(__file__).parents[2] / "benchmarks" / "campaign"
_NAMES = published_agents()


@pytest.mark.parametrize("name", _NAMES)
def test_bundle(name: str) -> None:
    bundle = Bundle.open(PUBLISHED / name)
    assert default_name(bundle.manifest.algorithm, bundle.manifest.env_id) == name
    assert locate(name).path == PUBLISHED / name
    assert (PUBLISHED / name / "README.md").is_file()
    assert {"evaluation.json", "config.yml", "policy.onnx"} <= set(bundle.files)
    assert OnnxPolicy(name).env_id == bundle.manifest.env_id
    video = PUBLISHED / name / "replay.mp4"
    assert not video.exists() or video.stat().st_size <= MAX_VIDEO_BYTES


def test_they_are_small_together() -> None:
    files = (path for path in PUBLISHED.rglob("*") if path.is_file())
    assert sum(path.stat().st_size for path in files) < _MAX_BYTES


def test_they_are_the_median_seeds_of_the_tables() -> None:
    rows = {
        default_name(row.algo, row.env_id): row
        for row in gather(load_results(Places(_RESULTS, Path("logs"))))
    }
    assert _NAMES
    for name in _NAMES:
        report = json.loads(Bundle.open(PUBLISHED / name).read("evaluation.json"))
        median = median_result(rows[name])
        assert report["training_seed"] == median.cell.seed, name
        assert report["returns"] == list(median.returns), name


@pytest.mark.slow
@pytest.mark.parametrize("name", _NAMES)
def test_episodes_repeat_bit_for_bit(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([name]) == 0
    assert "verified bit for bit" in capsys.readouterr().out
