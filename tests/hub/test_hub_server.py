"""The tests' own Hub, judged by what the real client makes of it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub as hf
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

CARD = """\
---
library_name: stable-baselines3
tags: [Walker2d-v4, reinforcement-learning]
---
# An agent
"""


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


@pytest.fixture
def repo(live_hub: Any, request: pytest.FixtureRequest) -> str:
    """An empty repository of the organisation, named after the test."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:60].strip("-")
    return str(live_hub.api().create_repo(f"zoo-lab/{name}").repo_id)


def read(live_hub: Any, repo: str, path: str, cache: Path, **options: Any) -> bytes:
    return Path(live_hub.api().hf_hub_download(repo, path, cache_dir=cache, **options)).read_bytes()


def test_folder_comes_back_byte_for_byte(live_hub: Any, repo: str, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    (folder / "logs").mkdir(parents=True)
    contents = {
        "README.md": CARD.encode(),
        "policy.onnx": os.urandom(300_000),
        "empty.txt": b"",
        "logs/ünïcode ✓.csv": b"steps,return\n1,2\n",
        "large.csv": b"0123456789\n" * 1_000_000,  # text, but beyond the limit for git itself
    }
    for path, content in contents.items():
        (folder / path).write_bytes(content)
    commit = live_hub.api().upload_folder(repo_id=repo, folder_path=folder)
    snapshot = Path(live_hub.api().snapshot_download(repo, cache_dir=tmp_path / "cache"))
    assert snapshot.name == commit.oid
    assert {path: (snapshot / path).read_bytes() for path in contents} == contents
    info = live_hub.api().model_info(repo, files_metadata=True)
    by_name = {sibling.rfilename: sibling for sibling in info.siblings}
    assert {n for n, s in by_name.items() if s.lfs} == {"policy.onnx", "large.csv"}
    assert by_name["policy.onnx"].lfs.sha256 == hashlib.sha256(contents["policy.onnx"]).hexdigest()
    assert by_name["large.csv"].size == 11_000_000
    assert by_name["README.md"].blob_id == _git_sha1(contents["README.md"])


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_repeated_upload_makes_no_commit(live_hub: Any, repo: str) -> None:
    files = {"a.txt": b"one", "policy.onnx": os.urandom(100)}
    api = live_hub.api()
    first = api.create_commit(repo, [add(*item) for item in files.items()], commit_message="x")
    again = api.create_commit(repo, [add(*item) for item in files.items()], commit_message="x")
    assert again.oid == first.oid
    assert len(api.list_repo_commits(repo)) == 2  # the repository's own and ours


def test_files_by_branch_tag_and_commit(live_hub: Any, repo: str, tmp_path: Path) -> None:
    api = live_hub.api()
    old = api.create_commit(repo, [add("a.txt", b"old")], commit_message="Old").oid
    api.create_tag(repo, tag="v1")
    api.create_branch(repo, branch="exp/1")  # a slash inside one segment of the address
    new = api.create_commit(repo, [add("a.txt", b"new")], commit_message="New").oid
    api.create_commit(repo, [add("a.txt", b"try")], commit_message="Try", revision="exp/1")
    found = {
        revision: read(live_hub, repo, "a.txt", tmp_path, revision=revision)
        for revision in ("main", "v1", "exp/1", old, new)
    }
    assert found == {"main": b"new", "v1": b"old", "exp/1": b"try", old: b"old", new: b"new"}
    refs = api.list_repo_refs(repo)
    assert {branch.name for branch in refs.branches} == {"main", "exp/1"}
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": old}
    assert [c.title for c in api.list_repo_commits(repo)] == ["New", "Old", "initial commit"]
    assert api.model_info(repo, revision=new[:8]).sha == new
    for again in (
        lambda: api.create_tag(repo, tag="v1"),
        lambda: api.create_branch(repo, branch="exp/1"),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            again()
        assert error.value.response.status_code == 409
    api.delete_tag(repo, tag="v1")
    api.delete_branch(repo, branch="exp/1")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="v1")


def test_delete_and_replace_in_one_commit(live_hub: Any, repo: str, tmp_path: Path) -> None:
    api = live_hub.api()
    files = [add("a.txt", b"a"), add("old/1.txt", b"1"), add("old/2.txt", b"2")]
    api.create_commit(repo, files, commit_message="Add")
    operations = [
        CommitOperationDelete("old/", is_folder=True),
        CommitOperationDelete("a.txt"),
        add("b.onnx", b"\0b"),
    ]
    api.create_commit(repo, operations, commit_message="Replace")
    assert set(api.list_repo_files(repo)) == {".gitattributes", "b.onnx"}
    with pytest.raises(EntryNotFoundError):
        api.create_commit(repo, [CommitOperationDelete("a.txt")], commit_message="Again")


def test_stale_parent_is_refused(live_hub: Any, repo: str) -> None:
    api = live_hub.api()
    start = api.model_info(repo).sha
    api.create_commit(repo, [add("a.txt", b"1")], commit_message="First", parent_commit=start)
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit(repo, [add("a.txt", b"2")], commit_message="Second", parent_commit=start)
    assert error.value.response.status_code == 412
    assert "commit has happened since" in str(error.value)


@pytest.mark.parametrize("path", ["a//b", "a/../../b", "x/.git/config", "back\\slash"])
def test_paths_outside_are_refused(live_hub: Any, path: str) -> None:
    """The client checks some of these itself, so the request is made by hand."""
    api = live_hub.api()
    repo = api.create_repo("zoo-lab/paths", exist_ok=True).repo_id
    body = (
        '{"key":"header","value":{"summary":"x"}}\n'
        '{"key":"file","value":{"path":"PATH","content":"YQ==","encoding":"base64"}}\n'
    ).replace("PATH", path.replace("\\", "\\\\"))
    response = hf.get_session().post(
        f"{live_hub.url}/api/models/{repo}/commit/main",
        content=body.encode(),
        headers={"Authorization": "Bearer hf_ada"},
    )
    assert response.status_code == 422
    assert "Invalid path" in response.headers["X-Error-Message"]
    assert api.list_repo_files(repo) == [".gitattributes"]


@pytest.mark.slow
def test_tree_and_paths(live_hub: Any, repo: str) -> None:
    api = live_hub.api()
    files = [add("a.txt", b"a"), add("x/b.txt", b"bb"), add("x/y/c.onnx", b"\0cc")]
    api.create_commit(repo, files, commit_message="Add")
    top = {item.path: type(item).__name__ for item in api.list_repo_tree(repo)}
    assert top == {".gitattributes": "RepoFile", "a.txt": "RepoFile", "x": "RepoFolder"}
    below = [item.path for item in api.list_repo_tree(repo, "x", recursive=True)]
    assert below == ["x/b.txt", "x/y", "x/y/c.onnx"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "nowhere"))
    found = api.get_paths_info(repo, ["x/y/c.onnx", "x", "missing"])
    assert [(item.path, type(item).__name__) for item in found] == [
        ("x/y/c.onnx", "RepoFile"),
        ("x", "RepoFolder"),
    ]
    assert found[0].lfs.sha256 == hashlib.sha256(b"\0cc").hexdigest()


@pytest.mark.slow
def test_long_listings_come_in_pages(live_hub: Any, repo: str) -> None:
    api = live_hub.api()
    files = [add(f"{number:04}.txt", b"") for number in range(1100)]
    api.create_commit(repo, files, commit_message="Add")
    assert len(list(api.list_repo_tree(repo))) == 1101
    response = hf.get_session().get(f"{live_hub.url}/api/models?limit=1")
    assert 'rel="next"' in response.headers["Link"]


@pytest.mark.slow
def test_part_of_a_file(live_hub: Any, repo: str) -> None:
    content = bytes(range(256))
    files = [add("a.bin", content), add("a.txt", b"0123456789")]
    live_hub.api().create_commit(repo, files, commit_message="Add")
    get = hf.get_session().get
    address = f"{live_hub.url}/{repo}/resolve/main"
    for path, wanted, expected in (
        ("a.bin", "bytes=10-19", content[10:20]),
        ("a.bin", "bytes=250-", content[250:]),
        ("a.txt", "bytes=2-4", b"234"),
        ("a.txt", "bytes=-3", b"789"),
    ):
        part = get(f"{address}/{path}", headers={"Range": wanted})
        assert (part.status_code, part.content) == (206, expected), (path, wanted)
    assert get(f"{address}/a.txt", headers={"Range": "bytes=99-"}).status_code == 416


def test_interrupted_download_resumes(live_hub: Any, repo: str, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    commit = live_hub.api().create_commit(repo, [add("a.bin", content)], commit_message="Add")
    blobs = tmp_path / f"models--{repo.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    oid = hashlib.sha256(content).hexdigest()
    (blobs / f"{oid}.incomplete").write_bytes(content[:60_000])
    assert read(live_hub, repo, "a.bin", tmp_path, revision=commit.oid) == content


def test_missing_things_are_named(live_hub: Any, repo: str, tmp_path: Path) -> None:
    api = live_hub.api()
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("zoo-lab/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(repo, "a.txt", revision="nope", cache_dir=tmp_path)
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "a.txt", cache_dir=tmp_path)
    sha = api.model_info(repo).sha
    # The client has written down that this commit lacks the file, so it asks nobody next time.
    known_missing = hf.try_to_load_from_cache(repo, "a.txt", cache_dir=tmp_path, revision=sha)
    assert known_missing is hf._CACHED_NO_EXIST


def test_private_repository(live_hub: Any, tmp_path: Path) -> None:
    api = live_hub.api()
    repo = api.create_repo("zoo-lab/private", visibility="private").repo_id
    api.create_commit(repo, [add("a.txt", b"a")], commit_message="Add")
    assert api.model_info(repo).private is True
    for token in ("hf_bob", False):
        stranger = live_hub.api(token)
        with pytest.raises(RepositoryNotFoundError):
            stranger.model_info(repo)
        with pytest.raises(RepositoryNotFoundError):
            stranger.snapshot_download(repo, cache_dir=tmp_path)
        with pytest.raises(RepositoryNotFoundError):
            stranger.create_commit(repo, [add("b.txt", b"")], commit_message="Intrude")
        assert repo not in {info.id for info in stranger.list_models(author="zoo-lab")}
    assert repo in {info.id for info in api.list_models(author="zoo-lab")}
    api.update_repo_settings(repo, visibility="public")
    assert read(live_hub, repo, "a.txt", tmp_path, token=False) == b"a"


def test_large_file_of_a_private_repository_cannot_be_claimed(live_hub: Any) -> None:
    """Whoever knows the hash of a file has not got the file."""
    content = os.urandom(1000)
    api, bob = live_hub.api(), live_hub.api("hf_bob")
    api.create_repo("zoo-lab/secret", visibility="private")
    api.create_commit("zoo-lab/secret", [add("policy.onnx", content)], commit_message="Add")
    bob.create_repo("claims")
    oid = hashlib.sha256(content).hexdigest()
    header = '{"key":"header","value":{"summary":"x"}}\n'
    claim = '{"key":"lfsFile","value":{"path":"p.onnx","algo":"sha256","oid":"OID","size":1000}}'
    post, token = hf.get_session().post, {"Authorization": "Bearer hf_bob"}
    response = post(
        f"{live_hub.url}/api/models/bob/claims/commit/main",
        content=(header + claim.replace("OID", oid)).encode(),
        headers=token,
    )
    assert response.status_code == 422
    batch = post(
        f"{live_hub.url}/bob/claims.git/info/lfs/objects/batch",
        json={"operation": "upload", "objects": [{"oid": oid, "size": 1000}]},
        headers=token,
    )
    assert "upload" in batch.json()["objects"][0]["actions"]
    damaged = hf.get_session().put(
        batch.json()["objects"][0]["actions"]["upload"]["href"], content=b"x" * 1000
    )
    assert damaged.status_code == 400
    assert bob.list_repo_files("bob/claims") == [".gitattributes"]


def test_rights(live_hub: Any, repo: str) -> None:
    for token, status in (("hf_bob", 403), ("hf_ada_read", 403)):
        with pytest.raises(HfHubHTTPError) as error:
            live_hub.api(token).create_commit(repo, [add("a", b"")], commit_message="x")
        assert error.value.response.status_code == status
        with pytest.raises(HfHubHTTPError) as error:
            live_hub.api(token).create_repo("zoo-lab/another")
        assert error.value.response.status_code == status
    with pytest.raises(HfHubHTTPError) as error:
        live_hub.api("hf_nobody").model_info(repo)
    assert not isinstance(error.value, RepositoryNotFoundError)
    assert "Invalid credentials" in str(error.value)
    assert live_hub.api("hf_ada").whoami()["orgs"][0]["name"] == "zoo-lab"
    with pytest.raises(HfHubHTTPError):
        live_hub.api("hf_nobody").whoami()


@pytest.mark.slow
def test_gated_repository(live_hub: Any, repo: str, tmp_path: Path) -> None:
    live_hub.api().create_commit(repo, [add("a.txt", b"a")], commit_message="Add")
    live_hub.api().update_repo_settings(repo, gated="manual")
    with pytest.raises(GatedRepoError):
        live_hub.api("hf_bob").hf_hub_download(repo, "a.txt", cache_dir=tmp_path)


@pytest.mark.slow
def test_names(live_hub: Any) -> None:
    api = live_hub.api()
    assert api.create_repo("bare").repo_id == "ada/bare"
    assert api.create_repo("bare", exist_ok=True).repo_id == "ada/bare"
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo("ada/Bare")  # upper and lower case count as the same
    assert error.value.response.status_code == 409
    assert api.model_info("ADA/bare").id == "ada/bare"
    api.delete_repo("ada/bare")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("ada/bare")
    assert api.create_repo("bare").repo_id == "ada/bare"


@pytest.mark.slow
def test_listing_by_tags_and_sort(live_hub: Any) -> None:
    api = live_hub.api()
    for name, env in (("ppo-Ant-v4", "Ant-v4"), ("ppo-Walker2d-v4", "Walker2d-v4")):
        api.create_repo(f"ada/{name}")
        card = CARD.replace("Walker2d-v4", env)
        api.create_commit(f"ada/{name}", [add("README.md", card.encode())], commit_message="Add")
    ours = list(api.list_models(author="ada", filter=["stable-baselines3", "Ant-v4"], full=True))
    assert [info.id for info in ours] == ["ada/ppo-Ant-v4"]
    assert ours[0].library_name == "stable-baselines3"
    assert ours[0].pipeline_tag == "reinforcement-learning"
    assert {info.id for info in api.list_models(search="PPO-walker")} == {"ada/ppo-Walker2d-v4"}
    latest = next(iter(api.list_models(author="ada", sort="last_modified", cardData=True)))
    assert latest.id == "ada/ppo-Walker2d-v4"
    assert latest.card_data.tags == ["Walker2d-v4", "reinforcement-learning"]
    assert list(api.list_models(author="ada", filter="Reacher-v4")) == []


def test_metadata_that_the_pages_cannot_read_is_refused(live_hub: Any, repo: str) -> None:
    card = CARD.replace("tags: [Walker2d-v4, reinforcement-learning]", "tags: Walker2d-v4")
    with pytest.raises(ValueError, match='"tags" must be an array of strings'):
        live_hub.api().create_commit(repo, [add("README.md", card.encode())], commit_message="x")
    content = base64.b64encode(card.encode()).decode()  # by hand: the client asks before it uploads
    body = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "file", "value": {"path": "README.md", "content": content, "encoding": "base64"}},
    ]
    response = hf.get_session().post(
        f"{live_hub.url}/api/models/{repo}/commit/main",
        content="\n".join(map(json.dumps, body)).encode(),
        headers={"Authorization": "Bearer hf_ada"},
    )
    assert response.status_code == 400
    assert live_hub.api().list_repo_files(repo) == [".gitattributes"]


@pytest.mark.slow
def test_eight_writers_lose_nothing(live_hub: Any, repo: str, tmp_path: Path) -> None:
    def write(writer: int) -> None:
        api = live_hub.api()
        for number in range(3):
            files = [
                add(f"{writer}-{number}.txt", b"%d %d" % (writer, number)),
                add(f"{writer}-{number}.onnx", bytes([0, writer, number])),
                add("shared.txt", b"%d" % writer),
            ]
            api.create_commit(repo, files, commit_message=f"{writer} {number}")

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    commits = live_hub.api().list_repo_commits(repo)
    titles = {f"{writer} {number}" for writer in range(8) for number in range(3)}
    assert sorted(commit.title for commit in commits) == sorted([*titles, "initial commit"])
    snapshot = Path(live_hub.api().snapshot_download(repo, cache_dir=tmp_path))
    for writer in range(8):
        for number in range(3):
            assert (snapshot / f"{writer}-{number}.txt").read_bytes() == b"%d %d" % (writer, number)
            content = (snapshot / f"{writer}-{number}.onnx").read_bytes()
            assert content == bytes([0, writer, number])


@pytest.mark.slow
def test_one_of_eight_wins_with_the_same_parent(live_hub: Any, repo: str) -> None:
    start = live_hub.api().model_info(repo).sha
    outcomes: list[object] = []

    def write(writer: int) -> None:
        files = [add("a.txt", b"%d" % writer)]
        try:
            live_hub.api().create_commit(repo, files, commit_message="x", parent_commit=start)
            outcomes.append("won")
        except HfHubHTTPError as error:
            outcomes.append(error.response.status_code)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["412"] * 7 + ["won"]


@pytest.mark.slow
def test_two_names_of_the_server_at_once(live_hub: Any, repo: str) -> None:
    """Each client is answered with addresses under the name that it used."""
    other = live_hub.url.replace("127.0.0.1", "localhost")
    done: dict[str, set[str]] = {live_hub.url: set(), other: set()}

    def upload(url: str) -> None:
        for number in range(5):
            response = hf.get_session().post(
                f"{url}/{repo}.git/info/lfs/objects/batch",
                json={"operation": "upload", "objects": [{"oid": f"{number:064}", "size": 1}]},
                headers={"Authorization": "Bearer hf_ada"},
            )
            href = response.json()["objects"][0]["actions"]["upload"]["href"]
            done[url].add(href.partition("/lfs/")[0])

    threads = [threading.Thread(target=upload, args=(url,)) for url in done for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == {url: {url} for url in done}


@pytest.mark.slow
def test_what_is_stored_outlives_the_server(start_hub: Callable[..., Any], tmp_path: Path) -> None:
    first = start_hub(tmp_path / "root")
    api = first.api()
    api.create_repo("zoo-lab/kept", visibility="private")
    files = [add("a.onnx", b"\0a")]
    commit = api.create_commit("zoo-lab/kept", files, commit_message="Add").oid
    first.process.kill()
    first.process.wait()
    second = start_hub(tmp_path / "root")
    assert second.api().model_info("zoo-lab/kept").sha == commit
    assert read(second, "zoo-lab/kept", "a.onnx", tmp_path) == b"\0a"
    with pytest.raises(RepositoryNotFoundError):
        second.api("hf_bob").model_info("zoo-lab/kept")


@pytest.mark.slow
def test_uploads_from_memory_need_no_xet(live_hub: Any, tmp_path: Path) -> None:
    """A process that has not switched Xet off uploads open files all the same."""
    code = f"""
import io
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()
api.create_repo("ada/buffers")
files = [CommitOperationAdd("policy.onnx", io.BytesIO({os.urandom(50)!r}))]
print(api.create_commit("ada/buffers", files, commit_message="Add").oid)
"""
    environment = live_hub.environment(tmp_path)
    assert "HF_HUB_DISABLE_XET" not in environment
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert live_hub.api().model_info("ada/buffers").sha == done.stdout.strip()


@pytest.mark.slow
def test_storage_is_a_git_repository(live_hub: Any, repo: str, tmp_path: Path) -> None:
    live_hub.api().create_commit(repo, [add("a.txt", b"a")], commit_message="Add")
    namespace, name = repo.split("/")
    store = live_hub.root / "models" / namespace / name / "repository.git"
    for command in (["fsck", "--strict"], ["log", "--format=%s", "main"]):
        done = subprocess.run(
            ["git", "--git-dir", str(store), *command],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.splitlines() == ["Add", "initial commit"]


def test_open_files_are_uploaded(live_hub: Any, repo: str, tmp_path: Path) -> None:
    files = [CommitOperationAdd("a.onnx", io.BytesIO(b"\0a"))]
    live_hub.api().create_commit(repo, files, commit_message="Add")
    assert read(live_hub, repo, "a.onnx", tmp_path) == b"\0a"
