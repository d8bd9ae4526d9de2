"""`make abuse`: attack a deployment as one account, and measure whether another account notices.

In each phase, the bystander sends 20 requests a second and does one main job. The phases are: no attack (the
idle values), the control (the load generator uses CPU, sends nothing), and each attack with 60 connections.
The run fails if a request of the bystander or a probe fails, if the p99 of the requests is 5 times the idle
one or more, if a probe takes a second, or if memory grows.

All processes share the cores of this machine. So the load generator has a low priority, and the table lists
its share of a core. An idle p99 below `FLOOR_MS` counts as `FLOOR_MS`: on two cores, a turn of the scheduler
already costs several times a p99 of a few milliseconds. The control shows what the machine adds without a
request: if it fails, other work disturbs the measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.abuse.attacks import ATTACKS
from tests.abuse.bystander import Bystander, WebhookReceiver
from tests.abuse.client import Address
from tests.abuse.deployment import Deployment, run_deployment
from tests.abuse.report import (
    Phase,
    find_failures,
    format_header,
    format_row,
    judge,
    own_memory,
    write_report,
)
from tools.bench.processes import cpu_seconds
from tools.servers.processes import report_logs
from tools.servers.server import ROOT

ATTACKER, BYSTANDER = "127.0.0.2", "127.0.0.3"
"""Different addresses of the loopback interface, so that limits per address tell the two apart."""
CONTROL = "control"
IDLE_SECONDS, CONTROL_SECONDS, ATTACK_SECONDS, WARM_UP_SECONDS = 20, 8, 15, 6
WARM_UP = ("variants", "uploads", "bombs")
"""Attacks that fill the memory which the allocator keeps. A second round must not need more."""
SETTLE_SECONDS = 60
"""Cut-outs of uploaded images would disturb the next attacks."""
NICENESS = "10"
SEED = 2041


class Run:
    """The phases of one run against a deployment."""

    def __init__(self, deployment: Deployment, bystander: Bystander, seed: int) -> None:
        self.deployment, self.bystander, self.seed = deployment, bystander, seed

    async def idle(self, seconds: float) -> Phase:
        """Measure without an attack, after a warm-up."""
        for name in WARM_UP:
            await self._generate(name, WARM_UP_SECONDS)
        await self._settle()
        await self.bystander.observe(3)
        return await self._measure("idle", seconds, self._nothing)

    async def attack(self, name: str, seconds: float) -> Phase:
        """Measure during an attack, then wait until the servers are idle again."""
        phase = await self._measure(name, seconds, self._generate)
        await self._settle()
        return phase

    async def _measure(self, name: str, seconds: float, generate: Any) -> Phase:
        memory = self.deployment.memory()
        servers = [server.process.pid for server in self.deployment.servers]
        for pid in servers:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak
        began, cpu_before = time.monotonic(), sum(map(cpu_seconds, servers))
        attack = asyncio.create_task(generate(name, seconds))
        await asyncio.sleep(1)  # the attack has started
        seen = await self.bystander.observe(seconds - 1)
        result = await attack
        passed = time.monotonic() - began
        server_cpu = (sum(map(cpu_seconds, servers)) - cpu_before) / passed
        peak = sum(map(_peak_bytes, servers))
        await asyncio.sleep(1)
        after = self.deployment.memory()
        return Phase(
            name,
            seen,
            result["statuses"],
            result["cpu_seconds"] / seconds,
            server_cpu,
            after,
            own_memory(after) - own_memory(memory),
            peak,
        )

    async def _nothing(self, _name: str, _seconds: float) -> dict[str, Any]:
        return {"statuses": {}, "cpu_seconds": 0.0}

    async def _generate(self, name: str, seconds: float) -> dict[str, Any]:
        deployment = self.deployment
        task = {
            **deployment.attacker.as_json(),
            "attack": name,
            "seconds": seconds,
            "seed": self.seed,
            "ports": [_port(server.origin) for server in deployment.servers],
            "source": ATTACKER,
            "files": str(deployment.files),
            "slow_port": deployment.slow_port,
        }
        process = await asyncio.create_subprocess_exec(
            "nice", "-n", NICENESS, sys.executable, "-m", "tests.abuse.generator",
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            output, _ = await process.communicate(json.dumps(task).encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        result: dict[str, Any] = json.loads(output)
        return result

    async def _settle(self) -> None:
        """Wait until the servers and the worker use little CPU, at most `SETTLE_SECONDS`."""
        deployment = self.deployment
        pids = [*(server.process.pid for server in deployment.servers), deployment.worker.pid]
        for _ in range(SETTLE_SECONDS):
            before = sum(map(cpu_seconds, pids))
            await asyncio.sleep(1)
            if sum(map(cpu_seconds, pids)) - before < 0.2:
                return


def _port(origin: str) -> int:
    return int(origin.rpartition(":")[2])


def _peak_bytes(process_id: int) -> int:
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


async def run_phases(deployment: Deployment, names: list[str], seed: int, seconds: float) -> list[Phase]:
    """Run the idle phase, the control and the attacks, and print each as it ends."""
    receiver = WebhookReceiver()
    addresses = [Address(_port(server.origin), BYSTANDER) for server in deployment.servers]
    async with receiver.run(deployment.receiver_port):
        run = Run(deployment, Bystander(deployment.bystander, addresses, receiver), seed)
        idle = await run.idle(IDLE_SECONDS)
        print(format_header(), flush=True)
        phases = [idle]
        print(format_row(idle, idle), flush=True)
        for name in (CONTROL, *names):
            phase = await run.attack(name, CONTROL_SECONDS if name == CONTROL else seconds)
            phases.append(phase)
            print(format_row(idle, phase), flush=True)
        await run.bystander.close()
    return phases


def main(arguments: list[str] | None = None) -> int:
    """Run the phases and return the exit status: 0 if the bystander noticed nothing."""
    parser = argparse.ArgumentParser(prog="make abuse ARGS=...", description=__doc__)
    parser.add_argument("attacks", nargs="*", help=f"some of: {', '.join(ATTACKS)}; by default all")
    parser.add_argument("--seconds", type=float, default=ATTACK_SECONDS, help="duration of an attack")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--with-rates", action="store_true", help="with the default limits per minute")
    options = parser.parse_args(arguments)
    if unknown := set(options.attacks) - ATTACKS.keys():
        parser.error(f"unknown: {', '.join(unknown)}")
    folder = Path(tempfile.mkdtemp(prefix="sartiq-abuse-"))
    failures = ["the run did not end"]
    try:
        with report_logs(folder), run_deployment(folder, options.seed, options.with_rates) as deployment:
            names = options.attacks or list(ATTACKS)
            phases = asyncio.run(run_phases(deployment, names, options.seed, options.seconds))
        failures = judge(phases)
        if find_failures(phases[0], phases[1]):
            print("the control fails: other work on this machine disturbs the measurement")
        print(f"numbers: {write_report(phases, failures, options.seed)}")
    finally:
        print(*failures, sep="\n")
        if failures:
            print(f"FAILED; the logs are in {folder}")
        else:
            print("passed")
            shutil.rmtree(folder, ignore_errors=True)
    return int(bool(failures))


if __name__ == "__main__":
    raise SystemExit(main())
