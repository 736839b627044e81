"""Damaged, linked, endless and bursting files: each refused, none read further than needed."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.errors import BundleError
from hub.bundle import Bundle
from hub.bundle_format.tensor_file import read_tensors, write_tensors

LISTED = ("policy.safetensors", "normalizer.safetensors", "optimizer.safetensors")


@pytest.mark.parametrize("name", [*LISTED, "evaluation.json"])
def test_damage_is_noticed(name: str, published: Any, attack: Any) -> None:
    folder = published()
    content = (folder / name).read_bytes()
    damaged = {
        "truncated": content[:-1],
        "longer": content + b"\0",
        "empty": b"",
        "one bit": content[:-1] + bytes([content[-1] ^ 1]),
    }
    for kind, other in damaged.items():
        (folder / name).write_bytes(other)
        attack.assert_refused(
            folder, f"{name} has {'the SHA-256' if kind == 'one bit' else len(other)}"
        )
    (folder / name).unlink()
    attack.assert_refused(folder, f"lacks {name}")


def test_a_file_that_changes_after_opening_is_noticed(published: Any) -> None:
    folder = published()
    bundle = Bundle.open(folder)
    weights = read_tensors((folder / "policy.safetensors").read_bytes(), "f")
    weights["log_std"] += 1
    (folder / "policy.safetensors").write_bytes(write_tensors(weights, "f"))
    with pytest.raises(BundleError, match="it was changed or damaged"):
        bundle.load_policy()


@pytest.mark.parametrize("name", ["agent.json", *LISTED, "evaluation.json", "README.md"])
def test_links_are_refused(name: str, published: Any, tmp_path: Path, attack: Any) -> None:
    folder = published()
    outside = tmp_path / "outside"
    if (folder / name).exists():
        shutil.move(folder / name, outside)
    else:
        outside.write_text("secret")
    (folder / name).symlink_to(outside)
    attack.assert_refused(folder, "link")


def test_a_linked_folder_is_refused(published: Any, tmp_path: Path, attack: Any) -> None:
    (tmp_path / "link").symlink_to(published())
    attack.assert_refused(tmp_path / "link", "is a link; give the folder itself")


def test_a_pipe_does_not_block(published: Any, attack: Any) -> None:
    for name in ("agent.json", "policy.safetensors"):
        folder = published()
        (folder / name).unlink()
        os.mkfifo(folder / name)
        attack.assert_refused(folder, "not a regular file")
        shutil.rmtree(folder)


def test_sparse_giants_are_not_read(published: Any, attack: Any) -> None:
    for name in ("agent.json", "policy.safetensors", "evaluation.json"):
        folder = published()
        os.truncate(folder / name, 2**40)
        attack.assert_refused(folder, "bytes; at most")
        shutil.rmtree(folder)


def test_a_zip_bomb_stays_packed(published: Any, attack: Any) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bomb:
        bomb.writestr("policy.pth", bytes(2**24))
    for name in LISTED:
        folder = published()
        attack.put(folder, name, buffer.getvalue())
        with pytest.raises(BundleError, match=f"{name} is truncated or not a safetensors file"):
            Bundle.open(folder).load_model(DummyVecEnv([published.task]))
        shutil.rmtree(folder)
