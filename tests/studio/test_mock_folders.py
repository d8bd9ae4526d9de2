"""The prepared folder that mocks are copied from, and the temporary folders of mocks that were killed."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from studio.mock import folders

FILES = {"postgresql/data/base/1": "rows", "start/media/image.webp": "image"}


class Preparation:
    """Prepares folders without a real cluster, and counts them."""

    def __init__(self) -> None:
        self.prepared: list[Path] = []
        self.on_call: Callable[[], object] = lambda: None

    def __call__(self, folder: Path) -> None:
        self.prepared.append(folder)
        for name, content in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True)
            path.write_text(content)
        self.on_call()


@pytest.fixture
def preparation() -> Preparation:
    return Preparation()


def read_files(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def test_the_first_mock_prepares_a_folder_and_others_copy_it(
    tmp_path: Path, preparation: Preparation
) -> None:
    place = tmp_path / "data"
    for name in ("first", "second"):
        folders.create_from_template(tmp_path / name, place, "demo", "one", preparation)
        assert read_files(tmp_path / name) == FILES
    assert preparation.prepared == [place / "mock-template.new"]
    assert sorted(path.name for path in place.iterdir()) == ["mock-template-demo-one", "mock-template.lock"]
    assert place.stat().st_mode & 0o777 == 0o700


def test_mocks_that_start_at_the_same_moment_prepare_one_folder(
    tmp_path: Path, preparation: Preparation
) -> None:
    barrier = threading.Barrier(3)

    def start(name: str) -> dict[str, str]:
        barrier.wait()
        folders.create_from_template(tmp_path / name, tmp_path / "data", "demo", "one", preparation)
        return read_files(tmp_path / name)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(start, "abc")) == [FILES] * 3
    assert len(preparation.prepared) == 1


def test_a_preparation_that_was_killed_is_repeated(tmp_path: Path, preparation: Preparation) -> None:
    new = tmp_path / "data" / "mock-template.new" / "postgresql" / "data"
    new.mkdir(parents=True)
    (new / "half").write_text("rows")
    folders.create_from_template(tmp_path / "mock", tmp_path / "data", "demo", "one", preparation)
    assert read_files(tmp_path / "mock") == FILES
    assert not new.exists()


def test_a_preparation_that_fails_leaves_nothing(tmp_path: Path, preparation: Preparation) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    preparation.on_call = interrupt
    with pytest.raises(KeyboardInterrupt):
        folders.create_from_template(tmp_path / "mock", tmp_path / "data", "demo", "one", preparation)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mock-template.lock"]


def test_a_prepared_folder_of_another_release_is_replaced(tmp_path: Path, preparation: Preparation) -> None:
    for digest in ("one", "two"):
        folders.create_from_template(tmp_path / digest, tmp_path / "data", "demo", digest, preparation)
    folders.create_from_template(tmp_path / "contract", tmp_path / "data", "contract", "one", preparation)
    assert len(preparation.prepared) == 3
    kept = {path.name for path in (tmp_path / "data").glob("mock-template-*")}
    assert kept == {"mock-template-demo-two", "mock-template-contract-one"}


def test_a_prepared_folder_that_is_old_is_replaced_because_seeded_links_end(
    tmp_path: Path, preparation: Preparation
) -> None:
    folders.create_from_template(tmp_path / "first", tmp_path / "data", "demo", "one", preparation)
    template = tmp_path / "data" / "mock-template-demo-one"
    made_at = template.stat().st_mtime - folders.MAX_TEMPLATE_SECONDS
    os.utime(template, (made_at, made_at))
    for name in ("second", "third"):
        folders.create_from_template(tmp_path / name, tmp_path / "data", "demo", "one", preparation)
    assert len(preparation.prepared) == 2


def test_without_a_place_for_the_prepared_folder_a_mock_prepares_its_own(
    tmp_path: Path, preparation: Preparation, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.touch()
    folders.create_from_template(tmp_path / "mock", file / "data", "demo", "one", preparation)
    assert preparation.prepared == [tmp_path / "mock"]
    assert read_files(tmp_path / "mock") == FILES
    assert "cannot keep the start of the mock" in caplog.text


def test_only_folders_without_a_process_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other_place = tmp_path / "elsewhere"
    names = ("sartiq-mock.killed", "sartiq-mock.running", "sartiq-mock-0.2.0", "elsewhere")
    for name in names:
        (tmp_path / name / "start").mkdir(parents=True)
    (tmp_path / "sartiq-mock.link").symlink_to(other_place)
    running = os.open(tmp_path / "sartiq-mock.running", os.O_RDONLY)
    fcntl.flock(running, fcntl.LOCK_EX)
    with folders.temporary_folder() as own, folders.temporary_folder() as other:
        kept = {*names, "sartiq-mock.link"} - {"sartiq-mock.killed"}
        assert {path.name for path in tmp_path.iterdir()} == kept | {own.name, other.name}
        assert own.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert (other_place / "start").is_dir()
    os.close(running)
