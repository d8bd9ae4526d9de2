"""Tests of the package as its users get it: built, installed in an empty environment, typed, and at work."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import sartiq
from tools.clients.python_package import PROJECT, build_distributions
from tools.servers.server import RunningServer

HERE = Path(__file__).parent
ROOT = PROJECT.parents[1]
PROGRAMS = ("journey_sync.py", "journey_async.py")


def run(*command: str | Path, folder: Path | None = None, **environment: str) -> str:
    """Run a program with an empty environment, check that it succeeds, and return its standard output."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "PIP_INDEX_URL", "UV_INDEX_URL")
        if name in os.environ
    }
    outcome = subprocess.run(command, cwd=folder, env={**kept, **environment}, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Build the wheel and the source archive."""
    return build_distributions(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def python(distributions: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a new environment with the wheel, the versions of the lock file, and mypy."""
    environment = tmp_path_factory.mktemp("environment")
    wheel = next(path for path in distributions if path.suffix == ".whl")
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    # pip rejects a constraints file with hashes, and reads the registry of the machine from its own settings.
    pins = [
        line.split(" ")[0]
        for line in (ROOT / "requirements-dev.txt").read_text().splitlines()
        if "==" in line
    ]
    (environment / "constraints.txt").write_text("\n".join(pins))
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint",
               environment / "constraints.txt")  # fmt: skip
    run(*install, wheel)
    without = subprocess.run([environment / "bin" / "sartiq"], capture_output=True, text=True)
    assert (without.returncode, without.stderr[-25:]) == (1, "pip install click pillow\n")
    run(*install, f"{wheel}[cli,mcp]", "mypy")
    return python


@pytest.mark.slow("it builds and installs the package")
def test_wheel_and_source_archive_contain_the_generated_modules(distributions: list[Path]) -> None:
    wheel, archive = sorted(distributions, key=lambda path: path.suffix != ".whl")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    assert {"sartiq/py.typed", "sartiq/_generated/models.py", "sartiq/_generated/resources.py"} <= names
    assert not [name for name in names if name.endswith(("lock", "fingerprint")) or "test" in name]
    assert archive.name.endswith(".tar.gz")


@pytest.mark.slow("it builds and installs the package")
def test_the_package_and_programs_that_use_it_are_strictly_typed(python: Path, tmp_path: Path) -> None:
    """Nothing but the installed files is on the path."""
    mypy = (
        python,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        f"--cache-dir={ROOT / '.mypy_cache' / 'clients'}",
    )
    run(*mypy, "--package", "sartiq", folder=tmp_path)
    run(*mypy, *(HERE / name for name in PROGRAMS), folder=tmp_path)
    source = (HERE / "journey_sync.py").read_text(encoding="utf-8")
    # Each program has a name of its own: mypy reports the stored errors of a file again if it has the size of
    # the earlier one and was saved within the same second.
    mistakes = {
        "attribute.py": ("generation.progress", "generation.speed", '"Generation" has no attribute "speed"'),
        "argument.py": ('type="primary"', 'type="main"', "expected \"Literal['primary'"),
        "result.py": (
            "estimate.cost_credits",
            "estimate.predictions",
            '"GenerationEstimate" has no attribute "predictions"',
        ),
    }
    for name, (right, wrong, _) in mistakes.items():
        assert right in source
        (tmp_path / name).write_text(source.replace(right, wrong), encoding="utf-8")
    outcome = subprocess.run([*mypy, *mistakes], cwd=tmp_path, capture_output=True, text=True)
    errors = [line for line in outcome.stdout.splitlines() if ": error: " in line]
    assert len(errors) == len(mistakes), outcome.stdout + outcome.stderr
    for name, (_, _, message) in mistakes.items():
        assert any(error.startswith(f"{name}:") and message in error for error in errors), outcome.stdout


@pytest.mark.slow("it builds and installs the package")
def test_the_installed_command_has_the_version_of_the_package(python: Path) -> None:
    assert run(python.with_name("sartiq"), "--version") == f"sartiq, version {sartiq.__version__}\n"


@pytest.mark.slow("it builds and installs the package")
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_installed_client_does_the_main_job(
    demo_server: RunningServer, python: Path, photo: Path, tmp_path: Path, program: str
) -> None:
    result = json.loads(run(python, HERE / program, demo_server.origin, photo, tmp_path, folder=tmp_path))
    image, archive = map(Path, result["files"])
    with Image.open(io.BytesIO(image.read_bytes())) as opened:
        assert (opened.format, opened.size) == ("JPEG", (192, 256))
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == result["content_hash"]
    assert (result["status"], result["cost"], result["progress"]) == ("approved", 2, 100)
    assert result["events"] in ([], ["completed"])
    assert sorted(result["images"]) == ["detail", "primary"]
    assert result["problem"] == [409, "sku_taken"]
