"""The health checks of the deployment files that run a command in a container."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]


class Probe(NamedTuple):
    """A command that ends with status 0 while a process works, and the file that has it."""

    place: str
    command: list[str]


def list_beat_probes() -> list[Probe]:
    """Return the probes of beat in the manifests of Kubernetes and in compose.yaml."""
    text = (ROOT / "deploy" / "kubernetes" / "beat.yaml").read_text(encoding="utf-8")
    (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    probes = [Probe(kind, container[kind]["exec"]["command"]) for kind in ("startupProbe", "livenessProbe")]
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    kind, *command = compose["services"]["beat"]["healthcheck"]["test"]
    assert kind == "CMD"
    # Compose replaces `$$` by `$`.
    return [*probes, Probe("compose", [part.replace("$$", "$") for part in command])]


BEAT_PROBES = list_beat_probes()
