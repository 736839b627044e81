"""The card: what the Hub's pages read, and numbers that follow from the evaluation."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import ModelCardData

from agents.errors import BundleError
from hub.curve_picture import draw_curve, read_curve
from hub.front_matter import card_environment, read_front_matter
from hub.model_card import AgentFacts, SeedResult, render_card

EVALUATION = {
    "training_seed": 3,
    "deterministic": True,
    "returns": [100.0, 200.0, 301.0],
    "seeds": [2147483648, 2147483649, 2147483650],
}
CONFIG = {
    "seed": 3,
    "n_timesteps": 1_000_000,
    "n_envs": 4,
    "policy": "MlpPolicy",
    "normalize": None,
    "agent": {"target_kl": 0.02},
}


def facts(**changes: Any) -> AgentFacts:
    given: dict[str, Any] = {
        "algo": "npg",
        "env_id": "Walker2d-v4",
        "n_timesteps": 1_000_000,
        "evaluation": EVALUATION,
        "config": CONFIG,
        "command": "python -m zoo.train --algo npg --env Walker2d-v4 --seed 3\n",
        "versions": {"torch": "2.13.0", "mujoco": None},
        "files": ["agent.json", "policy.onnx", "curve.png"],
    }
    return AgentFacts(**given | changes)


def test_front_matter_is_that_of_the_rl_pages() -> None:
    """As ``huggingface_sb3`` 3.2 writes it, which RL Zoo's repositories have."""
    card = ModelCard(render_card(facts(), "lab/npg-Walker2d-v4"))
    metadata = yaml.safe_load(card.data.to_yaml())
    assert metadata == {
        "library_name": "stable-baselines3",
        "tags": [
            *("Walker2d-v4", "deep-reinforcement-learning", "reinforcement-learning"),
            *("stable-baselines3", "natural-zoo", "npg"),
        ],
        "model-index": [
            {
                "name": "NPG",
                "results": [
                    {
                        "task": {
                            "type": "reinforcement-learning",
                            "name": "reinforcement-learning",
                        },
                        "dataset": {"name": "Walker2d-v4", "type": "Walker2d-v4"},
                        "metrics": [
                            {
                                "type": "mean_reward",
                                "value": "200.33 +/- 82.06",
                                "name": "mean_reward",
                            }
                        ],
                    }
                ],
            }
        ],
    }
    assert isinstance(card.data, ModelCardData)
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("Walker2d-v4", "200.33 +/- 82.06")
    assert statistics.pstdev(EVALUATION["returns"]) == pytest.approx(82.06, abs=0.005)  # type: ignore[arg-type]


def test_usage_names_the_agent_in_three_ways() -> None:
    text = render_card(facts(), "lab/npg-Walker2d-v4")
    blocks = text.split("```")[1::2]
    sb3, onnx, shell = blocks[:3]
    assert 'hub.load("lab/npg-Walker2d-v4")' in sb3
    assert 'hub.OnnxPolicy("lab/npg-Walker2d-v4")' in onnx
    assert "python -m hub.pull lab/npg-Walker2d-v4" in shell
    assert all(sum(map(bool, block.split("\n"))) <= 5 for block in blocks[:3])
    assert "hub.pull" not in render_card(facts(), "npg-Walker2d-v4")  # comes with the installation
    assert "![Evaluation return over environment steps](curve.png)" in text
    assert "curve.png" not in render_card(facts(files=[]), "x")


def test_evaluation_over_seeds() -> None:
    alone = render_card(facts(), "x")
    assert "| 3 | 1,000,000 | 3 | 200.3 | 82.1 | 200.0 | 100.0 | 301.0 |" in alone
    assert "training seeds:" not in alone
    siblings = [SeedResult(s, 1_000_000, [v, v + 2]) for s, v in ((1, 99.0), (2, 199.0))]
    siblings.append(SeedResult(3, 1_000_000, EVALUATION["returns"]))  # type: ignore[arg-type]
    text = render_card(facts(siblings=siblings), "x")
    assert "| 1 | 1,000,000 | 2 | 100.0 | 1.0 | 100.0 | 99.0 | 101.0 |" in text
    assert "| 3 (this agent) |" in text
    assert "Over 3 training seeds: 166.8 ± 57.8" in text


def test_reproduction_and_settings() -> None:
    text = render_card(facts(), "x")
    block = text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(block) == {
        key: CONFIG[key] for key in ("n_timesteps", "n_envs", "policy", "agent")
    }
    assert "python -m zoo.train --algo npg --env Walker2d-v4 --seed 3" in text
    assert "Trained with torch 2.13.0." in text
    bare = render_card(facts(config={}, command=None, versions={}), "x")
    assert "train it again" not in bare
    assert "Hyperparameters" not in bare


def test_license_is_said_if_there_is_one() -> None:
    assert read_front_matter(render_card(facts(license="mit"), "x"))["license"] == "mit"
    assert "license" not in read_front_matter(render_card(facts(), "x"))


def test_front_matter_of_others() -> None:
    metadata = read_front_matter(render_card(facts(), "x"))
    assert card_environment(metadata) == "Walker2d-v4"
    for damaged in ("", "# No metadata", "---\n- 1\n---\n", "---\na: [\n---\n", "---\na: 1"):
        assert read_front_matter(damaged) == {}
        assert card_environment(read_front_matter(damaged)) is None
    for index in ([], [{}], [{"results": [{"dataset": {"name": 3}}]}], "x"):
        assert card_environment({"model-index": index}) is None


def test_curves_are_read_and_drawn() -> None:
    curve = read_curve("timesteps,mean_return,std_return\n2000,20.5,1\n1000,10,0.5\n")
    assert (curve.steps, curve.means, curve.stds) == ([1000, 2000], [10, 20.5], [0.5, 1])
    picture = draw_curve(curve, "NPG on Walker2d-v4")
    assert picture.startswith(b"\x89PNG")
    assert picture == draw_curve(curve, "NPG on Walker2d-v4")
    assert read_curve("num_timesteps,mean_return\n1,2\n").stds == []
    assert read_curve("timesteps,mean_return\n").steps == []
    for damaged in ("a,b\n1,2\n", "timesteps,mean_return\n1,x\n", "timesteps,mean_return\n1,nan\n"):
        with pytest.raises(BundleError, match=r"curve\.csv"):
            read_curve(damaged)
