import json
import multiprocessing

import pytest

from agents.errors import RunFolderError
from zoo.runs import RunFolder, create_run_folder, run_folders

# What each process does, as source: functions of a test module cannot be imported elsewhere.
CREATE = """
from pathlib import Path
from zoo.runs import create_run_folder
barrier.wait()
names = [create_run_folder(Path(folder), "npg", "Ant-v4").path.name for _ in range(5)]
results.put(names)
"""


def with_config(run, text="seed: 1"):
    run.config.write_text(text)
    return run


def test_layout(tmp_path):
    run = create_run_folder(tmp_path, "npg", "Walker2d-v4")
    names = {
        "final_model": "Walker2d-v4.zip",
        "best_model": "best_model.zip",
        "evaluations": "evaluations.npz",
        "final_evaluation": "evaluation.json",
        "monitor": "0.monitor.csv",
        "progress": "progress.csv",
        "config": "Walker2d-v4/config.yml",
        "command": "Walker2d-v4/command.txt",
        "vec_normalize": "Walker2d-v4/vecnormalize.pkl",
    }
    assert run.path == tmp_path / "npg" / "Walker2d-v4_1"
    for attribute, name in names.items():
        assert getattr(run, attribute) == run.path / name
    assert run.checkpoint(1000) == run.path / "rl_model_1000_steps.zip"


@pytest.mark.parametrize(
    ("env_id", "name"), [("ALE/Pong-v5", "ALE-Pong-v5"), ("module:Task-v0", "Task-v0")]
)
def test_folder_names_are_rl_zoo_s(tmp_path, env_id, name):
    run = with_config(create_run_folder(tmp_path, "ppo", env_id))
    assert run.path.name == f"{name}_1"
    assert run.settings.name == name
    assert RunFolder.open(run.path).final_model == run.final_model


def test_numbers_go_on_after_the_highest(tmp_path):
    for name in ("Ant-v4_2", "Ant-v4_10", "Ant-v4_x", "Ant-v40_99", "xAnt-v4_50"):
        (tmp_path / "npg" / name).mkdir(parents=True)
    assert create_run_folder(tmp_path, "npg", "Ant-v4").path.name == "Ant-v4_11"
    assert create_run_folder(tmp_path, "trpo", "Ant-v4").path.name == "Ant-v4_1"


def test_processes_that_start_at_once(tmp_path):
    context = multiprocessing.get_context("forkserver")
    barrier, results = context.Barrier(8), context.Queue()
    shared = {"barrier": barrier, "results": results, "folder": str(tmp_path)}
    processes = [context.Process(target=exec, args=(CREATE, shared)) for _ in range(8)]
    for process in processes:
        process.start()
    names = [name for _ in processes for name in results.get(timeout=60)]
    for process in processes:
        process.join()
    results.close()
    results.join_thread()
    assert len(names) == 40
    assert sorted(names) == sorted(f"Ant-v4_{k}" for k in range(1, 41))


def test_checkpoints_by_number(tmp_path):
    run = create_run_folder(tmp_path, "npg", "Ant-v4")
    for name in ("rl_model_900_steps.zip", "rl_model_10000_steps.zip", "rl_model_x_steps.zip"):
        (run.path / name).touch()
    assert list(run.checkpoints()) == [900, 10_000]


def test_newest_first(tmp_path):
    for _ in range(11):
        with_config(create_run_folder(tmp_path, "npg", "Ant-v4"))
    create_run_folder(tmp_path, "npg", "Ant-v4")  # killed before it had a configuration
    names = [run.path.name for run in run_folders(tmp_path, "npg", "Ant-v4")]
    assert names == [f"Ant-v4_{k}" for k in range(11, 0, -1)]
    assert run_folders(tmp_path, "npg", "Hopper-v4") == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"num_timesteps": null}'])
def test_unfinished(tmp_path, content):
    run = create_run_folder(tmp_path, "npg", "Ant-v4")
    assert run.finished_timesteps() is None
    run.final_evaluation.write_text(content)
    assert run.finished_timesteps() is None
    run.final_evaluation.write_text(json.dumps({"num_timesteps": 5}))
    assert run.finished_timesteps() == 5


def test_lock_is_exclusive_and_ends(tmp_path):
    run = create_run_folder(tmp_path, "npg", "Ant-v4")
    with run.locked(), pytest.raises(RunFolderError, match="Another process"), run.locked():
        pass
    with run.locked():
        pass


def test_open_refuses_other_folders(tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        RunFolder.open(tmp_path / "missing")


def test_remains_of_a_killed_process_are_removed(tmp_path):
    run = with_config(create_run_folder(tmp_path, "npg", "Ant-v4"))
    (run.path / ".best_model.zip.123.tmp").touch()
    (run.settings / ".config.yml.123.tmp").touch()
    (run.path / "mine.tmp").touch()
    for name in (".bundle.123.ab.tmp", ".bundle.123.ab.old"):
        (run.path / name).mkdir()
        (run.path / name / "agent.json").touch()
    run.remove_temporary_files()
    assert not list(run.path.glob(".bundle*"))
    assert [path.name for path in run.path.rglob("*.tmp")] == ["mine.tmp"]
    run.remove()
    assert not run.path.exists()
