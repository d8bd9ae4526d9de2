"""Converters to collections of requests, and the programs that run them."""

from __future__ import annotations

from tests.generators.generator import Generator

GENERATORS: tuple[Generator, ...] = ()
