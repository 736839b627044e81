"""The study: Optuna's storage, and who works on which trial.

A trial belongs to the process that holds the lock of its folder. When that process ends, however it
does, the next one that looks takes the trial over and goes on with it. A process on another machine
has no lock here; it signs its trials every minute instead, and a trial that has not been signed for
ten minutes counts as failed.
"""

from __future__ import annotations

import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.errors import ConfigError, MissingDependency
from hub.atomic import write_text
from zoo.locks import FileLock
from zoo.tuning.protocol import Protocol

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = ["PRUNERS", "SAMPLERS", "Claim", "StudyFolder", "open_study"]

SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "halving", "none")
N_STARTUP_TRIALS = 10
_PROTOCOL = "protocol"
_SIGNED = "signed"
_SIGN_SECONDS = 60.0
_STALE_SECONDS = 600.0
_PAUSE_TO_SIGN_SECONDS = 2.0


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingDependency(
            f"Tuning needs Optuna ({error}). Type: pip install 'natural-zoo[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@dataclass
class Claim:
    """A trial that this process works on."""

    trial: Trial
    folder: Path
    lock: FileLock
    signed: float = 0.0

    def sign(self) -> None:
        """Tell other machines now and then that the trial is being worked on."""
        if time.time() - self.signed > _SIGN_SECONDS:
            self.signed = time.time()
            self.trial.set_user_attr(_SIGNED, self.signed)

    def intermediate_steps(self) -> list[int]:
        """Return the steps that have been reported of the trial."""
        return list(self.trial.storage.get_trial(self.trial._trial_id).intermediate_values)

    def release(self) -> None:
        """Let another process have the trial."""
        self.lock.release()

    def remove_folder(self) -> None:
        """Delete what the trial's trainings left."""
        shutil.rmtree(self.folder, ignore_errors=True)


class StudyFolder:
    """The local files of a study: the journal, the trials' folders, and the locks.

    :param path: made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    @property
    def journal(self) -> Path:
        """Optuna's journal, unless another storage is given."""
        return self.path / "journal.log"

    @property
    def _asking(self) -> Path:
        """There while a process asks for a new trial: how many there were before."""
        return self.path / "asking"

    def trial(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.path / "trials" / str(number)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process of this machine asks for a trial."""
        path = self.path / "study.lock"
        path.touch()
        lock = FileLock(path)
        while not lock.acquire():
            time.sleep(0.01)
        try:
            yield
        finally:
            lock.release()

    def claim(self, study: Study, n_trials: int, sampler: str, seed: int) -> Claim | None:
        """Return a trial to work on: one that was left behind, or a new one.

        :param n_trials: no new trial beyond so many.
        :return: None if there is nothing to do for this process.
        """
        with self.alone():
            trials = study.get_trials(deepcopy=False)
            study.sampler = _make_sampler(sampler, seed, len(trials))
            for frozen in trials:
                if frozen.state.name == "RUNNING" and (claim := self._take_over(study, frozen)):
                    return claim
            waiting = any(frozen.state.name == "WAITING" for frozen in trials)
            if len(trials) >= n_trials and not waiting:
                return None
            write_text(self._asking, str(len(trials)))
            trial = study.ask()
            lock = self._lock(trial.number)
            if lock is None:
                raise ConfigError(
                    f"{self.trial(trial.number)} belongs to another study. Give this one a folder "
                    "of its own with --log-folder, or another --study-name."
                )
            return self._claimed(trial, lock)

    def is_idle(self, study: Study) -> bool:
        """Return whether no process, here or elsewhere, works on a trial of the study."""
        with self.alone():
            for frozen in study.get_trials(deepcopy=False):
                if frozen.state.name != "RUNNING":
                    continue
                lock = self._lock(frozen.number) if self.trial(frozen.number).exists() else None
                if lock is None:
                    return False
                lock.release()
        return True

    def _take_over(self, study: Study, frozen: FrozenTrial) -> Claim | None:
        optuna = _optuna()
        if self.trial(frozen.number).exists():
            lock = self._lock(frozen.number)
            if lock is None:
                return None
            return self._claimed(optuna.trial.Trial(study, frozen._trial_id), lock)
        if self._died_asking_for(study, frozen):
            lock = self._lock(frozen.number)
            if lock is None:
                return None
            return self._claimed(optuna.trial.Trial(study, frozen._trial_id), lock)
        if time.time() - frozen.user_attrs.get(_SIGNED, time.time()) > _STALE_SECONDS:
            trial = optuna.trial.Trial(study, frozen._trial_id)
            trial.set_user_attr("error", "the process that worked on it has ended")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None

    def _died_asking_for(self, study: Study, frozen: FrozenTrial) -> bool:
        """Return whether a process of this machine was given the trial and ended at once.

        Only one process asks at a time, so what an earlier one noted it can no longer be doing.
        """
        if _SIGNED in frozen.user_attrs or not self._asking.is_file():
            return False
        if frozen.number < int(self._asking.read_text()):
            return False
        time.sleep(_PAUSE_TO_SIGN_SECONDS)  # another machine signs right after it has asked
        return _SIGNED not in study.get_trials()[frozen.number].user_attrs

    def _claimed(self, trial: Trial, lock: FileLock) -> Claim:
        claim = Claim(trial, self.trial(trial.number), lock)
        claim.sign()
        self._asking.unlink(missing_ok=True)
        return claim

    def _lock(self, number: int) -> FileLock | None:
        folder = self.trial(number)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.with_suffix(".lock")
        path.touch()
        lock = FileLock(path)
        return lock if lock.acquire() else None


def open_study(
    folder: StudyFolder,
    name: str,
    protocol: Protocol,
    *,
    storage: str | None = None,
    pruner: str = "median",
) -> Study:
    """Return the study ``name``, made if it is new.

    :param storage: a database URL, the path of a journal, or None for the folder's journal.
    :param pruner: one of :data:`PRUNERS`.
    :raises ConfigError: the study has trials that were trained or scored in another way.
    :raises MissingDependency: Optuna, or the database's driver, is not installed.
    """
    optuna = _optuna()
    with folder.alone():
        study: Study = optuna.create_study(
            storage=_storage(storage or str(folder.journal)),
            study_name=name,
            direction="maximize",
            pruner=_make_pruner(pruner, protocol),
            load_if_exists=True,
        )
        recorded = study.user_attrs.get(_PROTOCOL)
        wanted = protocol.record()
        if recorded is None:
            study.set_user_attr(_PROTOCOL, wanted)
        elif recorded != wanted:
            changed = [key for key in wanted if recorded.get(key) != wanted[key]]
            raise ConfigError(
                f"The study '{name}' has another {', '.join(changed)}; trials of different "
                "protocols cannot be compared. Give the same options to go on with it, or another "
                "--study-name."
            )
    return study


def _storage(name: str) -> BaseStorage:
    optuna = _optuna()
    if "://" in name:
        try:
            storage: BaseStorage = optuna.storages.RDBStorage(name)
        except ImportError as error:
            raise MissingDependency(f"--storage {name} needs a driver: {error}.") from error
        except Exception as error:  # whatever SQLAlchemy and the driver make of it
            raise ConfigError(
                f"--storage {name} cannot be opened ({' '.join(str(error).split())[:200]}). "
                "Give a URL such as sqlite:///study.db, or leave it out for a journal file."
            ) from error
        return storage
    journal = optuna.storages.journal
    make_lock = (
        journal.JournalFileOpenLock if sys.platform == "win32" else journal.JournalFileSymlinkLock
    )
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    backend = journal.JournalFileBackend(name, lock_obj=make_lock(name))
    try:
        return optuna.storages.JournalStorage(backend)  # type: ignore[no-any-return]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{name} is not a journal of Optuna ({type(error).__name__}: {error}). Give another "
            "file with --storage."
        ) from error


def _make_sampler(name: str, seed: int, number: int) -> BaseSampler:
    """Return the sampler of one trial, seeded with its number: a resumed study goes on the same."""
    optuna = _optuna()
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if name == "random":
        return optuna.samplers.RandomSampler(seed=own_seed)  # type: ignore[no-any-return]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: BaseSampler = optuna.samplers.TPESampler(
            n_startup_trials=N_STARTUP_TRIALS,
            multivariate=True,
            group=True,  # a search space has parameters that only some trials have
            seed=own_seed,
        )
    return sampler


def _make_pruner(name: str, protocol: Protocol) -> BasePruner:
    pruners = _optuna().pruners
    if name == "none":
        pruner: BasePruner = pruners.NopPruner()
    elif name == "halving":
        pruner = pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    else:
        pruner = pruners.MedianPruner(
            n_startup_trials=N_STARTUP_TRIALS,
            n_warmup_steps=protocol.n_evaluations // 2,  # half of a first training is too early
            n_min_trials=5,
        )
    return pruner
