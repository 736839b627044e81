"""Traces of this machine and its user in what is about to be published.

A command line holds the folder that runs were logged to, a pickle the path of a module, a log the
name of a host. Everything that is pushed is searched, archives and the base64 in them included.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import io
import os
import re
import shlex
import socket
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from agents.errors import HubError

__all__ = ["check_leaks", "own_secrets", "shareable_command"]

_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{30,}")
_HOME = re.compile(rb"(?:/home/|/Users/|[A-Za-z]:[\\/]{1,2}Users[\\/]{1,2})[\w.-]+")
_BASE64 = re.compile(rb'":serialized:": ?"([A-Za-z0-9+/=]+)"')
_MIN_NAME = 5
_COMMON_NAMES = frozenset(
    {"admin", "administrator", "debian", "docker", "jovyan", "localhost", "runner", "ubuntu"}
)
_MAX_DEPTH = 3

# Options of zoo.train that say where things are, not what is trained.
_LOCAL_OPTIONS = {
    *("-f", "--log-folder", "-tb", "--tensorboard-log", "--resume"),
    *("--wandb-project-name", "--wandb-entity", "--wandb-group"),
}
_LOCAL_FLAGS = {"-P", "--no-progress", "--track", "--debug"}


def check_leaks(files: Mapping[str, bytes], secrets: Collection[str] | None = None) -> None:
    """Refuse to publish what tells about this machine.

    :param files: content by name.
    :param secrets: what must not be in them; :func:`own_secrets` if not given.
    :raises HubError: something is; the message does not repeat a token.
    """
    known = own_secrets() if secrets is None else secrets
    patterns = [_pattern(secret) for secret in sorted(known, key=len, reverse=True) if secret]
    for name, content in files.items():
        for place, part in _parts(name, content, 0):
            found = _find(part, patterns)
            if found is not None:
                raise HubError(
                    f"{place} would tell about this machine: it holds {found}. Remove that from "
                    "the agent and push again; nothing has been uploaded."
                )


def own_secrets() -> set[str]:
    """Return this machine's paths and names, and the user's tokens."""
    secrets = {os.environ[name] for name in ("HF_TOKEN", "WANDB_API_KEY") if os.environ.get(name)}
    secrets |= {str(path) for path in _folders() if len(path.parts) > 1}
    names = {socket.gethostname().partition(".")[0], _user()}
    secrets |= {n for n in names if len(n) >= _MIN_NAME and n.lower() not in _COMMON_NAMES}
    return secrets | _stored_tokens()


def shareable_command(command: str) -> str:
    """Return a command line of ``zoo.train`` without what says where its user keeps things.

    :param command: as it was typed.
    """
    words = shlex.split(command)
    kept, skip = [], False
    for word in words:
        option = word.partition("=")[0]
        if skip:
            skip = False
        elif option in _LOCAL_OPTIONS:
            skip = option == word
        elif word not in _LOCAL_FLAGS:
            kept.append(Path(word).name if Path(word).is_absolute() else word)
    return shlex.join(kept)


def _folders() -> set[Path]:
    """Return the folders that tell whose machine this is; ``/usr`` and ``/tmp`` do not."""
    folders = {Path(sys.prefix), Path(sys.base_prefix), Path(tempfile.gettempdir())}
    with suppress(OSError):  # somebody has removed it
        folders.add(Path.cwd())
    folders = {path for folder in folders for path in (folder, folder.resolve())}
    home = {Path.home(), Path.home().resolve()}
    return {path for path in folders if len(path.parts) > 2} | home


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return ""


def _stored_tokens() -> set[str]:
    """Return the token that `hf auth login` has kept, without asking for huggingface_hub."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    try:
        return {Path(home, "token").read_text(encoding="utf-8").strip()} - {""}
    except (OSError, UnicodeDecodeError):
        return set()


def _pattern(secret: str) -> re.Pattern[bytes]:
    """Match a name or path that is not a part of a longer word."""
    text = re.escape(secret.encode())
    text = text.replace(rb"\\", rb"[\\/]{1,2}") if "\\" in secret else text
    return re.compile(rb"(?<![\w.-])" + text + rb"(?![\w-])")


def _find(content: bytes, patterns: list[re.Pattern[bytes]]) -> str | None:
    if _TOKEN.search(content):
        return "a token"
    match = _HOME.search(content)
    for pattern in patterns:
        match = match or pattern.search(content)
    if match is None:
        return None
    text = match[0].decode("utf-8", "replace")
    return f"'{text}'" if "/" in text or "\\" in text else "a name or token of this machine"


def _parts(name: str, content: bytes, depth: int) -> Iterator[tuple[str, bytes]]:
    """Yield a file, the members of an archive and the base64 in them."""
    yield name, content
    for encoded in _BASE64.findall(content):
        try:
            yield name, base64.b64decode(encoded)
        except binascii.Error:
            continue
    if depth < _MAX_DEPTH and zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield from _parts(f"{name}: {info.filename}", archive.read(info), depth + 1)
