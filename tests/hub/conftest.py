"""A Hub of our own for the tests, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent.parent
ACCOUNTS = (
    "ada:hf_ada:zoo-lab",  # writes to her own namespace and the organisation's
    "ada:hf_ada_read:zoo-lab:read",
    "bob:hf_bob",
)


@dataclass(frozen=True)
class LiveHub:
    """A running server.

    :param url: what ``HF_ENDPOINT`` is set to.
    :param root: where it keeps its repositories.
    """

    url: str
    root: Path
    process: subprocess.Popen[str]

    def api(self, token: str | bool = "hf_ada") -> Any:
        """Return the real client with a user's token; False sends none."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.url, token=token)

    def environment(self, home: Path, token: str | None = "hf_ada") -> dict[str, str]:
        """Return the variables of a process on a machine of its own: empty home, empty cache."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        hub = {
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "HF_HOME": str(home / ".cache" / "huggingface"),
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        return kept | hub | ({"HF_TOKEN": token} if token else {})


@pytest.fixture(scope="session")
def start_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., LiveHub]]:
    """Start servers: ``start_hub(root)``; they end with the tests."""
    started: list[LiveHub] = []

    def start(root: Path | None = None) -> LiveHub:
        root = root or tmp_path_factory.mktemp("hub")
        options = [part for account in ACCOUNTS for part in ("--account", account)]
        process = subprocess.Popen(
            [sys.executable, "-m", "hub_server", "--root", str(root), *options],
            cwd=TESTS,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        started.append(LiveHub(process.stdout.readline().strip(), root, process))
        return started[-1]

    yield start
    for hub in started:
        hub.process.terminate()
        hub.process.wait(10)
        if hub.process.stdout:
            hub.process.stdout.close()


@pytest.fixture(scope="session")
def live_hub(start_hub: Callable[..., LiveHub]) -> LiveHub:
    """The server that tests share; each uses repositories of its own."""
    return start_hub()
