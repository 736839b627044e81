"""What must not be published is found wherever it hides, and ordinary files pass."""

from __future__ import annotations

import base64
import io
import json
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

from agents.errors import HubError
from hub.leak_check import check_leaks, own_secrets, shareable_command

TOKEN = "hf_" + "aB3" * 12


def archive(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return buffer.getvalue()


HIDINGS = {
    "plain": lambda secret: b"x " + secret + b" y",
    "in an archive": lambda secret: archive("a.csv", b'{"log": "' + secret + b'"}'),
    "in an archive in an archive": lambda secret: archive("a.zip", archive("b", secret)),
    "in base64": lambda secret: archive(
        "data", json.dumps({"a": {":serialized:": base64.b64encode(secret).decode()}}).encode()
    ),
    "in binary": lambda secret: b"\0\xff" + secret + b"\0\xfe",
}


@pytest.mark.parametrize("hiding", HIDINGS)
@pytest.mark.parametrize(
    "secret",
    [TOKEN, "/home/ada", "/Users/ada/logs", "C:\\Users\\ada", "/srv/secret-project", "labmachine7"],
)
def test_traces_are_found(hiding: str, secret: str) -> None:
    files = {"fine.txt": b"nothing", "bad.bin": HIDINGS[hiding](secret.encode())}
    known = {"/srv/secret-project", "labmachine7"}
    with pytest.raises(HubError, match=r"^bad\.bin.*would tell about this machine") as error:
        check_leaks(files, known)
    assert TOKEN not in str(error.value)
    assert "labmachine7" not in str(error.value)


def test_ordinary_content_passes() -> None:
    noise = np.random.default_rng(0).bytes(3_000_000)
    files = {
        "noise.mp4": noise,
        "noise.zip": archive("noise", noise),
        "README.md": b"python -m zoo.train --algo npg; see /usr/bin and ~/logs; hf_hub, myhost",
        "agent.json": b'{"host": "labmachine77", "path": "srv/secret-projects"}',
    }
    check_leaks(files, {"/srv/secret-project", "labmachine7", "myho"})


def test_this_machine_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "an-odd-token")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", "/var/people/ada")
    monkeypatch.setattr(socket, "gethostname", lambda: "labmachine7.example.org")
    monkeypatch.setattr("getpass.getuser", lambda: "adalovelace")
    (tmp_path / "token").write_text("stored-token\n")
    assert {
        *("an-odd-token", "stored-token", "/var/people/ada", str(Path.cwd())),
        *("labmachine7", "adalovelace"),
    } <= own_secrets()
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    assert "root" not in own_secrets()
    assert "/" not in own_secrets()
    with pytest.raises(HubError, match="a name or token of this machine"):
        check_leaks({"a": b"made by labmachine7 at noon"})


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "python -m zoo.train --algo npg --env Walker2d-v4 -f /home/ada/logs -P --seed 3",
            "python -m zoo.train --algo npg --env Walker2d-v4 --seed 3",
        ),
        (
            "python -m zoo.train --log-folder=/tmp/x --track --wandb-entity ada --algo npg",
            "python -m zoo.train --algo npg",
        ),
        (
            "python -m zoo.train --conf-file /home/ada/my.yml --hyperparams 'a=[1, 2]'",
            "python -m zoo.train --conf-file my.yml --hyperparams 'a=[1, 2]'",
        ),
    ],
)
def test_commands_lose_their_places(command: str, expected: str) -> None:
    assert shareable_command(command) == expected
