"""The command line of the kit. What is wrong with an option is said before the run, which takes minutes."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from sartiq_conformance import __version__

DESCRIPTION = """\
Check that a running server conforms to a contract: the one that it publishes, or one of yours.

A run creates one organization, changes nothing outside of it, and deletes what it has made at the end.

`sartiq-conformance diff OLD NEW` compares two OpenAPI documents instead; `diff --help` lists its options.
"""
EXIT_STATUS = """\
exit status:
  0    the server conforms
  1    the server does not conform: the output and the reports name the failed checks
  2    the server or the account cannot be used, or an option is wrong, and no report is written
  3    all other checks passed, but the kit has a defect: the output and the reports name it
  130  stopped by SIGINT (Ctrl-C), 143 by SIGTERM: the reports have the checks that ended before
"""
PARTS: dict[str, str] = {
    "flow": "the main workflow, from a brand to an approved image",
    "errors": "the format of errors",
    "authentication": "each protected operation without a credential",
    "behaviour": "rows, lists, filters, preconditions, retries and deletions",
    "fuzzing": "generated requests",
}
# People copy the header that a mock prints.
TOKEN_PREFIX = re.compile(r"^(authorization:)?\s*(bearer\s)?\s*", re.IGNORECASE)
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""The characters of a bearer token (RFC 6750, section 2.1)."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line. `parts` of the result are those to run."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    token = TOKEN_PREFIX.sub("", (options.token or "").strip())
    if not token:
        parser.error("the following arguments are required: --token, or the variable SARTIQ_TOKEN")
    # The message does not contain the token: logs of CI are often public.
    if not TOKEN.fullmatch(token):
        parser.error("the token has a character that no bearer token has, such as a space or a line break")
    options.token = token
    for report in (options.junit, options.html, options.json):
        if report and (problem := find_write_problem(report)):
            parser.error(f"{report} cannot be written: {problem}")
    options.parts = [part for part in options.only or PARTS if part not in (options.skip or ())]
    if not options.parts:
        parser.error("--only and --skip leave no part to run")
    return options


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="sartiq-conformance",
        description=DESCRIPTION,
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"%(prog)s {__version__}")
    add(
        "--base-url",
        metavar="URL",
        required=True,
        type=parse_base_url,
        help="URL of the API, such as https://host/api/v1",
    )
    # Other users of the machine can read an argument in the process list, but not the environment.
    token_help = "access token of an account with credits for one prediction; default: SARTIQ_TOKEN"  # noqa: S105 - a help text
    add("--token", default=os.environ.get("SARTIQ_TOKEN"), help=token_help)
    contract_help = "OpenAPI document (JSON or YAML) to check against; default: what the server publishes"
    add("--contract", metavar="FILE", type=parse_file, help=contract_help)
    add("--organization", metavar="ID", help="write to this organization instead of a new one")
    descriptions = "; ".join(f"{name}: {description}" for name, description in PARTS.items())
    only_help = f"run only this part; can be repeated. {descriptions}"
    add("--only", metavar="PART", choices=PARTS, action="append", help=only_help)
    add(
        "--skip", metavar="PART", choices=PARTS, action="append", help="do not run this part; can be repeated"
    )
    add("--keep", action="store_true", help="do not delete what the run has made")
    add(
        "--allow-additional-properties",
        action="store_true",
        help="accept properties in responses that the contract lacks: the server is newer than the contract",
    )
    add("--junit", metavar="FILE", type=Path, help="write a JUnit report to this file")
    add("--html", metavar="FILE", type=Path, help="write an HTML report to this file")
    add("--json", metavar="FILE", type=Path, help="write a JSON report to this file")
    add(
        "--examples",
        metavar="N",
        type=parse_positive_int,
        default=20,
        help="generated requests per operation; default: 20",
    )
    add("--seed", metavar="N", type=int, help="random seed, to repeat a run; default: random")
    return parser


def parse_base_url(text: str) -> str:
    """Return the URL of the API without a slash at its end."""
    try:
        url = urlsplit(text)
        is_usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is no number
        is_usable = False
    if not is_usable:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL such as https://host/api/v1")
    # Reports and logs of CI contain the URL.
    if url.username is not None or url.query or url.fragment:
        raise argparse.ArgumentTypeError("must have no user, password, query or fragment")
    return text.rstrip("/")


def parse_file(text: str) -> Path:
    """Return the path of an existing file."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is a URL: download it, and pass the file")
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file")
    return path


def parse_positive_int(text: str) -> int:
    """Return a positive integer."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def find_write_problem(report: Path) -> str | None:
    """Return why a report cannot be written, or None. Folders that do not exist are created."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror
    if report.is_dir():
        return "Is a directory"
    return None if os.access(report if report.exists() else report.parent, os.W_OK) else "Permission denied"
