"""Search the generated Java client for two defects that other contracts cause. Arguments: folder and URL.

The client is not compiled: its dependencies are in a registry that the tests do not use. It chooses the
first JSON type, problems included, for `Accept` and `Content-Type`. So an upload fails if its operation also
takes JSON, and a download fails if the server does not accept the chosen type, which is tried on the server.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx

UNKNOWN_ID = "01990000-0000-7000-8000-000000000000"
# The class, the method, and the path of its request.
UPLOADS = [("ProductsApi", "addProductImageCall"), ("SubjectsApi", "addBaseImageCall")]
DOWNLOADS = [
    ("PredictionsApi", "getPredictionImageCall", f"/predictions/{UNKNOWN_ID}/image"),
    ("ExportsApi", "downloadExportCall", f"/exports/{UNKNOWN_ID}/file"),
]


def read_method(folder: Path, api: str, method: str) -> str:
    """Return the source of a method; raise ValueError if the client does not have it."""
    (path,) = folder.rglob(f"{api}.java")
    source = path.read_text(encoding="utf-8")
    found = re.search(rf" {method}\(.*?\n    }}\n", source, re.DOTALL)
    if not found:
        raise ValueError(f"{api}.java has no method {method}")
    return found[0]


def read_types(source: str, variable: str) -> list[str]:
    """Return the media types in the array of a method."""
    found = re.search(rf"{variable} = {{(.*?)}};", source, re.DOTALL)
    if not found:
        raise ValueError(f"the method has no {variable}")
    return re.findall(r'"([^"]+)"', found[1])


def choose_accept(types: list[str]) -> str:
    """Return the header as `ApiClient.selectHeaderAccept` does."""
    return next((item for item in types if re.search(r"[/+]json$", item)), ",".join(types))


def request_status(url: str, accept: str) -> int:
    """Return the status of a request without a credential: 406 if the type is not accepted."""
    return httpx.get(url, headers={"Accept": accept}, timeout=60).status_code


def main(folder: Path, url: str) -> list[str]:
    """Return the findings, one line each."""
    findings = []
    for api, method in UPLOADS:
        types = read_types(read_method(folder, api, method), "localVarContentTypes")
        if types != ["multipart/form-data"]:
            findings.append(f"{method} sends one of {types} instead of multipart/form-data")
    for api, method, path in DOWNLOADS:
        accept = choose_accept(read_types(read_method(folder, api, method), "localVarAccepts"))
        status = request_status(url + path, accept)
        if status != 401:
            findings.append(f"{method} sends Accept: {accept}, which gets {status} instead of 401")
    return findings


if __name__ == "__main__":
    found = main(Path(sys.argv[1]), sys.argv[2])
    sys.stdout.write("".join(f"{line}\n" for line in found))
    raise SystemExit(bool(found))
