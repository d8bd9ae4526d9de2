"""The artifacts of `make dist`: complete, usable, and the same bytes for the same commit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from db.migrations import is_current
from tools.distribution.run import (
    CHECKSUMS,
    IMAGE_FILES,
    ROOT,
    build,
    build_bill_of_materials,
    build_context,
    list_files,
    read_version,
)
from tools.servers.databases import create_database

SECONDS = 1_790_000_000


def test_the_context_has_the_committed_files_of_the_image_and_no_others() -> None:
    unknown = ROOT / "studio" / "not-committed.tmp"
    unknown.touch()
    try:
        context = build_context(SECONDS)
    finally:
        unknown.unlink()
    with tarfile.open(fileobj=io.BytesIO(context)) as archive:
        entries = archive.getmembers()
    names = [entry.name for entry in entries]
    metadata = {(entry.mtime, entry.mode, entry.uid, entry.uname) for entry in entries}
    assert metadata == {(SECONDS, 0o644, 0, "")}
    folders = {"db", "handlers", "studio"}
    assert [name for name in names if name.partition("/")[0] in folders] == list_files(*folders)
    # Every file that the Dockerfile copies or reads.
    assert {*IMAGE_FILES, "openapi/openapi.json", "pyproject.toml", "requirements.txt", "wsgi.py"} <= set(
        names
    )
    assert {name for name in names if name.startswith(("clients/", "tests/api/", "."))} == {".dockerignore"}
    assert build_context(SECONDS) == context


@pytest.mark.slow("it starts a process that reads all packages")
def test_the_bill_of_materials_has_the_locked_packages_with_their_hashes() -> None:
    document = json.loads(build_bill_of_materials(read_version()))
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "sartiq-backend-api"
    components = {component["purl"]: component for component in document["components"]}
    lock = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)==([^ ]+) ", lock, re.MULTILINE)
    node = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    swagger = f"pkg:npm/swagger-ui-dist@{node['swagger-ui-dist']}"
    assert set(components) == {f"pkg:pypi/{name}@{version}" for name, version in pins} | {swagger}
    hashes = {
        digest["content"]
        for component in components.values()
        for reference in component.get("externalReferences", [])
        for digest in reference["hashes"]
    }
    assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))


@pytest.mark.slow("it builds everything twice")
def test_two_builds_have_the_same_bytes_and_the_artifacts_work(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        build(folder)
    sums = [(folder / CHECKSUMS).read_text() for folder in folders]
    assert sums[0] == sums[1]
    listed = dict(line.split("  ")[::-1] for line in sums[0].splitlines())
    files = {path.name: path for path in folders[0].iterdir()}
    assert set(listed) == set(files) - {CHECKSUMS}
    for name, digest in listed.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest
    assert any(re.fullmatch(r"sartiq-client-[\d.]+\.tgz", name) for name in listed)
    assert any(re.fullmatch(r"sartiq-[\d.]+-py3-none-any\.whl", name) for name in listed)

    # The kit, installed from its wheel. Its dependencies are those of this environment.
    (wheel,) = [path for name, path in files.items() if re.search(r"^sartiq_conformance-.*\.whl$", name)]
    venv.create(tmp_path / "kit", with_pip=True, system_site_packages=True)
    programs = tmp_path / "kit" / "bin"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([programs / "python", *install], check=True)
    packages = os.pathsep.join(path for path in sys.path if "site-packages" in path)
    command = [programs / "sartiq-conformance", "--help"]
    usage = subprocess.check_output(command, env=os.environ | {"PYTHONPATH": packages}, text=True)
    assert "--base-url" in usage
    document = ROOT / "openapi" / "openapi.json"
    command = [programs / "sartiq-conformance", "diff", document, document]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": packages}).returncode == 0

    # The files of the image are enough to prepare a database.
    (context,) = [path for name, path in files.items() if name.endswith("-image.tar")]
    with tarfile.open(context) as archive:
        archive.extractall(tmp_path / "image", filter="data")
    with create_database() as url:
        subprocess.run(
            [sys.executable, "-m", "handlers", "--prepare-only"],
            cwd=tmp_path / "image",
            env={"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data"), "DATABASE_URL": url},
            check=True,
            timeout=120,
        )
        assert is_current(url)
