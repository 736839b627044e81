"""Which code and which machine a number comes from."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

__all__ = ["machine", "source_commit"]

_ROOT = Path(__file__).parent.parent
_CODE = ("agents", "hub", "hyperparams", "zoo")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def source_commit() -> str | None:
    """Return the Git commit of this code, ``-dirty`` appended if the code differs from it.

    None where the code is no checkout, or Git is not installed.
    """
    if not (_ROOT / ".git").exists():  # installed inside somebody else's checkout
        return None
    commit = _git("rev-parse", "HEAD")
    if commit is None or not _COMMIT.fullmatch(commit):
        return None
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    return f"{commit}-dirty" if changes else commit


def _git(*arguments: str) -> str | None:
    # What a hook's environment says about another repository must not count.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    try:
        return subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(_ROOT), *arguments],  # noqa: S607 - whichever Git is installed
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            env=environment,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, str | int | None]:
    """Return what wall-clock times depend on: the processor and its cores; no name, no address."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "n_cores": os.cpu_count(),
    }


def _processor() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or None
