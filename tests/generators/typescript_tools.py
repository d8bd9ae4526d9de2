"""Generators of TypeScript clients."""

from __future__ import annotations

from tests.generators.generator import Generator

GENERATORS: tuple[Generator, ...] = ()
