"""Build the documentation into a folder: `make docs`.

Writes the sources to a temporary folder, runs the generator there, and replaces the folder when the build has
succeeded. A broken link fails the build.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from tools.site import make_targets
from tools.site.documentation import ROOT
from tools.site.endpoints import build_reference_navigation, load_contract, render_reference
from tools.site.markdown import copy_pages, render_llms_txt
from tools.site.output import move_scripts_to_files, remove_unused_files
from tools.site.source import Source, build_navigation

GENERATOR = ROOT / ".venv" / "docs" / "bin" / "zensical"


def build_site(target: Path, generator: Path = GENERATOR) -> None:
    """Build the site and put it into the folder `target`, which is replaced.

    Raises:
        subprocess.CalledProcessError: the generator failed, or found a broken link.
    """
    target = target.absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contract = load_contract()
        extra_pages = {**render_reference(contract), make_targets.PATH: make_targets.render_make_targets()}
        Source(folder / "docs", extra_pages=extra_pages).write()
        shutil.copytree(Path(__file__).parent / "assets", folder / "docs" / "assets")
        navigation = yaml.safe_dump(
            {
                "nav": build_navigation(
                    [*build_reference_navigation(contract), {"Make targets": make_targets.PATH}]
                )
            },
            sort_keys=False,
            allow_unicode=True,
        )
        configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
        (folder / "mkdocs.yml").write_text(f"{configuration}\n{navigation}", encoding="utf-8")
        command = [str(generator), "build", "--strict", "--config-file", "mkdocs.yml"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        built = folder / "site"
        move_scripts_to_files(built)
        remove_unused_files(built)
        copy_pages(folder / "docs", built)
        (built / "llms.txt").write_text(render_llms_txt(contract), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(built, target)


def main(arguments: list[str] | None = None) -> int:
    """Build the site and print where it is."""
    parser = argparse.ArgumentParser(prog="python -m tools.site.run", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / ".site", help="the folder to write")
    parser.add_argument("--generator", type=Path, default=GENERATOR, help="the command of the generator")
    options = parser.parse_args(arguments)
    try:
        build_site(options.output, options.generator)
    except subprocess.CalledProcessError as error:
        print(re.sub(r"\x1b\[[0-9;]*m", "", f"{error.stdout}\n{error.stderr}"))
        return 1
    pages = len(list(options.output.rglob("*.html")))
    print(f"Built {pages} pages: {options.output}. A server that starts now serves them at /guides/.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
