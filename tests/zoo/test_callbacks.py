import os
import signal
import threading

import numpy as np
import pytest

from agents.errors import RunFolderError
from zoo import callbacks
from zoo.callbacks import BetweenRollouts
from zoo.config import resolve_config
from zoo.evaluation import Evaluation
from zoo.periodic_evaluations import load_evaluations, save_evaluations
from zoo.progress_bar import ProgressBar, progress_bar
from zoo.runs import create_run_folder
from zoo.stop_signal import StopSignal
from zoo.training import Interrupted, prepare, train


@pytest.fixture
def run(tmp_path):
    return create_run_folder(tmp_path, "npg", "CartPole-v1")


def make_config(**settings):
    common = {"n_timesteps": 640, "seed": 1, "eval_freq": None, "save_freq": None}
    overrides = {"n_steps": 32, "n_envs": 2, "normalize": True}
    return resolve_config(
        "npg", "CartPole-v1", overrides=overrides, n_eval_episodes=2, **common | settings
    )


def evaluations(*timesteps):
    return {t: Evaluation([], [t / 2, t / 4], [t, t + 1]) for t in timesteps}


def test_learning_curve_is_cut_where_training_goes_on(run):
    save_evaluations(run, evaluations(10, 20, 30))
    loaded = load_evaluations(run, 20)
    assert list(loaded) == [10, 20]
    assert loaded[20].returns == [10.0, 5.0]
    assert loaded[20].lengths == [20, 21]
    assert load_evaluations(run, 0) == {}


def test_learning_curve_in_sb3_s_format(run):
    save_evaluations(run, evaluations(10, 20))
    with np.load(run.evaluations) as arrays:
        assert arrays["timesteps"].tolist() == [10, 20]
        np.testing.assert_array_equal(arrays["results"], [[5.0, 2.5], [10.0, 5.0]])
        np.testing.assert_array_equal(arrays["ep_lengths"], [[10, 11], [20, 21]])


@pytest.mark.parametrize("content", [b"", b"PK", b"nonsense"])
def test_damaged_learning_curve(run, content):
    run.evaluations.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"evaluations.npz is corrupted"):
        load_evaluations(run, 10)


def test_best_agent_is_replaced_only_by_a_better_one(run, monkeypatch):
    means = iter([1.0, 3.0, 3.0, 2.0, 4.0])
    monkeypatch.setattr(
        callbacks, "evaluate", lambda *_, **__: Evaluation([], [next(means)] * 2, [1, 1])
    )
    saved = []
    original = BetweenRollouts._save

    def save(self, path, boundary):
        saved.append((path.name, boundary.state.num_timesteps))
        original(self, path, boundary)

    monkeypatch.setattr(BetweenRollouts, "_save", save)
    with train(make_config(eval_freq=128), run, progress=False):
        pass
    assert saved == [
        *(("best_model.zip", 128), ("best_model.zip", 256), ("best_model.zip", 640)),
        ("CartPole-v1.zip", 640),
    ]


@pytest.mark.parametrize(
    ("eval_freq", "expected"),
    [(1, list(range(64, 641, 64))), (100, [128, 256, 320, 448, 512, 640]), (10_000, [])],
)
def test_times_of_evaluation(run, eval_freq, expected, monkeypatch):
    """Between two rollouts, whenever a multiple has been passed."""
    expected = [t for t in range(64, 641, 64) if t // eval_freq > (t - 64) // eval_freq]
    monkeypatch.setattr(callbacks, "evaluate", lambda *_, **__: Evaluation([], [1.0], [1]))
    with train(make_config(eval_freq=eval_freq), run, progress=False):
        pass
    assert list(load_evaluations(run, 10**9)) == expected


def test_normaliser_stands_still_while_evaluating(run, monkeypatch):
    seen = []
    original = BetweenRollouts._evaluate

    def watched(self):
        rms = self.model.env.obs_rms
        before = rms.mean.copy(), rms.var.copy(), rms.count
        original(self)
        np.testing.assert_array_equal(rms.mean, before[0])
        np.testing.assert_array_equal(rms.var, before[1])
        assert rms.count == before[2]
        seen.append(before[2])

    monkeypatch.setattr(BetweenRollouts, "_evaluate", watched)
    with train(make_config(eval_freq=256), run, progress=False):
        pass
    assert len(seen) == 2
    assert seen[1] - seen[0] == 256


# --- Stopping -----------------------------------------------------------------------------------


def test_first_signal_asks_second_interrupts():
    stop = StopSignal()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop.listening():
        assert stop._on_step()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.arrives_within(5.0)
        assert not stop.cut_short
        assert not stop._on_step()
        assert stop.cut_short
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_no_signal_arrives():
    assert not StopSignal().arrives_within(0.02)


def test_training_in_a_thread(run):
    """Signals belong to the main thread; everything else works."""
    done = []

    def work():
        with train(make_config(n_timesteps=64), run, progress=False) as model:
            done.append(model.num_timesteps)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [64]


def test_stop_goes_back_to_the_last_update(run, monkeypatch, tools):
    """What half a rollout changed is not saved: the file is that of a checkpoint there."""
    original = BetweenRollouts._on_step

    def on_step(self):
        if self.model.num_timesteps == 290:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self)

    monkeypatch.setattr(BetweenRollouts, "_on_step", on_step)
    with prepare(make_config(), run) as training, pytest.raises(Interrupted) as stopped:
        training.learn(progress=False)
    assert stopped.value.checkpoint == run.checkpoint(256)
    other = create_run_folder(run.path.parent.parent, "npg", "CartPole-v1")
    monkeypatch.undo()
    with train(make_config(save_freq=256), other, progress=False):
        pass
    tools.assert_same_tree(
        *(tools.agent_contents(folder.checkpoint(256)) for folder in (run, other))
    )
    state = tools.agent_contents(run.checkpoint(256))["state"]
    assert state["num_timesteps"] == 256
    assert state["iteration"] == 4


# --- Progress bar -------------------------------------------------------------------------------


def test_bar_leaves_no_thread(capsys):
    before = threading.active_count()
    with progress_bar(10, "training", "step") as bar:
        bar.update(10)
        assert threading.active_count() == before
    assert "10.0/10.0" in capsys.readouterr().err


def test_bar_is_closed_after_an_error(run, monkeypatch, capsys):
    closed = []
    original = ProgressBar.close
    monkeypatch.setattr(ProgressBar, "close", lambda self: closed.append(1) or original(self))

    def fail(self):
        raise ZeroDivisionError

    monkeypatch.setattr(BetweenRollouts, "_on_rollout_end", fail)
    with pytest.raises(ZeroDivisionError), train(make_config(), run):
        pass
    assert closed == [1]
    assert capsys.readouterr().err.endswith("\n")


def test_bar_goes_on_where_training_does(run, capsys):
    config = make_config(n_timesteps=256, save_freq=128)
    with train(config, run):
        pass
    assert "256/256" in capsys.readouterr().err
