"""Generators of TypeScript clients.

Each walk in `walks/` imports its generated client, so that one run of the compiler checks both. The compiler
also writes the JavaScript that runs.
"""

from __future__ import annotations

from tests.generators.generator import Command, Generator

STRICT = "`tsc --strict`"
STRICTER = "`tsc --strict --noUncheckedIndexedAccess`"
ESTIMATE = (
    "The return type of `generate_shot` and `create_generation` is `GenerationEstimate`, the response with "
    "the lowest status. {effect} List the generations of the shot to get the new one."
)


def compile_walk(name: str, *options: str) -> Command:
    """Return the command that compiles a walk and the client that it imports."""
    return (
        "{node}", "{modules}/typescript/bin/tsc", "--strict", *options,
        "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable", "--types", "node",
        "--rootDir", "{tools}/../..", "--outDir", "{output}/build", f"{{tools}}/walks/{name}.ts",
    )  # fmt: skip


def run_walk(name: str) -> Command:
    """Return the command that runs a compiled walk."""
    return "{node}", f"{{output}}/build/tests/generators/walks/{name}.js", "{url}", "{photo}"


GENERATORS: tuple[Generator, ...] = (
    Generator(
        name="openapi-generator typescript-axios",
        package="openapi-generator-cli",
        language="TypeScript",
        document="3.1",
        generate=(
            "{bin}/openapi-generator-cli", "generate", "--generator-name", "typescript-axios",
            "--input-spec", "{document}", "--output", "{output}/client",
            "--additional-properties", "useSingleRequestParameter=true",
        ),
        options="--additional-properties useSingleRequestParameter=true",
        checks=(compile_walk("openapi_generator_axios", "--noUncheckedIndexedAccess"),),
        checked_by=STRICTER,
        walk=run_walk("openapi_generator_axios"),
        limits=(
            ESTIMATE.format(effect="The value is the generation."),
            "Arrays with unique items have the type `Set`: requests take one, but responses have an array.",
            'Downloads need the request option `responseType: "arraybuffer"`.',
        ),
    ),
    Generator(
        name="openapi-generator typescript-fetch",
        package="openapi-generator-cli",
        language="TypeScript",
        document="3.1",
        generate=(
            "{bin}/openapi-generator-cli", "generate", "--generator-name", "typescript-fetch",
            "--input-spec", "{document}", "--output", "{output}/client",
            "--global-property", "apis,models,supportingFiles",
        ),
        options="--global-property apis,models,supportingFiles",
        checks=(compile_walk("openapi_generator_fetch"),),
        checked_by=STRICT,
        walk=run_walk("openapi_generator_fetch"),
        limits=(
            ESTIMATE.format(effect="The value lacks the properties of the generation."),
            "Without its option, it also writes the webhooks, and the client does not compile.",
            "`accessToken` is sent without `Bearer`: set `headers` of the `Configuration` instead.",
        ),
    ),
    Generator(
        name="hey-api openapi-ts",
        package="@hey-api/openapi-ts",
        language="TypeScript",
        document="3.1",
        generate=(
            "{node}", "{modules}/@hey-api/openapi-ts/bin/run.js", "--input", "{document}",
            "--output", "{output}/client",
        ),
        checks=(compile_walk("hey_api", "--noUncheckedIndexedAccess"),),
        checked_by=STRICTER,
        walk=run_walk("hey_api"),
    ),
    Generator(
        name="openapi-typescript",
        package="openapi-typescript",
        language="TypeScript",
        document="3.1",
        generate=(
            "{node}", "{modules}/openapi-typescript/bin/cli.js", "{document}",
            "--output", "{output}/sartiq.d.ts", "--default-non-nullable=false",
        ),
        options="--default-non-nullable=false",
        checks=(compile_walk("openapi_typescript", "--noUncheckedIndexedAccess"),),
        checked_by=STRICTER,
        walk=run_walk("openapi_typescript"),
        limits=(
            "Without its option, requests must have all properties that have a default.",
            "A file has the type `string`: a `bodySerializer` builds the `FormData`.",
            "Downloads need `parseAs`, and the sign-in needs its content type as a header.",
        ),
    ),
    Generator(
        name="orval",
        package="orval",
        language="TypeScript",
        document="3.1",
        generate=("{node}", "{modules}/orval/dist/bin/orval.mjs", "--config", "{tools}/orval.config.mjs"),
        options="client: fetch, baseUrl: {getBaseUrlFromSpecification: true}; client: zod",
        checks=(compile_walk("orval_fetch", "--noUncheckedIndexedAccess"),),
        checked_by=f"{STRICTER}; zod validates the responses of the main job",
        walk=run_walk("orval_fetch"),
    ),
)  # fmt: skip
