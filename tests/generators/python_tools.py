"""Generators of Python and Java clients."""

from __future__ import annotations

from tests.generators.generator import Generator

# openapi-generator writes client operations for webhooks, which are not valid Python. Naming what to generate
# leaves them out, and the tests and pages that are not used here.
_ONLY_CLIENT = (
    "--global-property",
    "apis,models,supportingFiles,apiTests=false,modelTests=false,apiDocs=false,modelDocs=false",
)

GENERATORS = (
    Generator(
        name="openapi-generator python",
        package="openapi-generator-cli",
        language="Python",
        document="3.1",
        options="--global-property apis,models,supportingFiles",
        generate=(
            "{bin}/openapi-generator-cli", "generate", "--generator-name", "python",
            "--input-spec", "{document}", "--output", "{output}", "--package-name", "sartiq", *_ONLY_CLIENT,
        ),
        checks=(
            ("{bin}/python", "-m", "compileall", "-q", "sartiq"),
            ("{bin}/mypy", "--strict", "{tools}/walks/openapi_generator_python.py"),
        ),
        checked_by="compileall; mypy --strict of the program, with the types of the client",
        walk=("{bin}/python", "{tools}/walks/openapi_generator_python.py", "{url}", "{photo}"),
        limits=(
            "Webhooks: without the option it writes client operations for them, which are not valid Python.",
            "`generate_shot` and `create_generation` return a generation, but are annotated as an estimate.",
        ),
    ),
    Generator(
        name="openapi-python-client",
        package="openapi-python-client",
        language="Python",
        document="3.1",
        generate=(
            "{bin}/openapi-python-client", "generate", "--path", "{document}", "--output-path", "{output}",
            "--overwrite",
        ),
        checks=(
            ("{bin}/python", "-m", "compileall", "-q", "sartiq_backend_api_client"),
            (
                "{bin}/mypy", "--strict", "--follow-imports", "silent",
                "{tools}/walks/openapi_python_client.py",
            ),
        ),
        checked_by="compileall; mypy --strict of the program, with the types of the client",
        walk=("{bin}/python", "{tools}/walks/openapi_python_client.py", "{url}", "{photo}"),
        limits=(
            "Files: `sync` returns None for images and archives; use `sync_detailed(...).content`.",
            "With `raise_on_unexpected_status`, they raise `UnexpectedStatus`; its `content` has the file.",
            "`TaskCallback.additional_properties`, which only providers send, has the name of an attribute.",
            "`mypy --strict` reports that class.",
            "The event stream and the YAML document are read as one response.",
        ),
    ),
    Generator(
        name="datamodel-code-generator",
        package="datamodel-code-generator",
        language="Python",
        document="3.1",
        options=(
            "--output-model-type pydantic_v2.BaseModel --use-annotated --set-default-enum-member "
            "--capitalize-enum-members"
        ),
        generate=(
            "{bin}/datamodel-codegen", "--input", "{document}", "--input-file-type", "openapi",
            "--output", "{output}/models.py", "--target-python-version", "3.11",
            "--output-model-type", "pydantic_v2.BaseModel", "--use-annotated", "--set-default-enum-member",
            "--capitalize-enum-members",
        ),
        checks=(
            ("{bin}/mypy", "--strict", "models.py"),
            ("{bin}/mypy", "--strict", "{tools}/walks/datamodel_code_generator.py"),
        ),
        checked_by="mypy --strict of the models and the program",
        walk=("{bin}/python", "{tools}/walks/datamodel_code_generator.py", "{url}", "{photo}"),
        limits=(
            "Models only; the program sends them with httpx, and validates each response with them.",
            "Passwords are `SecretStr`, which pydantic masks when it writes JSON.",
            "Without `--use-annotated`, mypy reports each constrained property.",
            "Without `--capitalize-enum-members`, mypy reports `ComplianceRule.format`, a method of `str`.",
        ),
    ),
    Generator(
        name="openapi-generator java",
        package="openapi-generator-cli",
        language="Java",
        document="3.1",
        options="--global-property apis,models,supportingFiles",
        generate=(
            "{bin}/openapi-generator-cli", "generate", "--generator-name", "java",
            "--input-spec", "{document}", "--output", "{output}", *_ONLY_CLIENT,
        ),
        checks=(("{bin}/python", "{tools}/java_source.py", "{output}", "{url}"),),
        checked_by="search of the source for two known defects (not compiled)",
        limits=(
            "Downloads send `Accept: application/problem+json` alone; the server accepts it everywhere.",
        ),
    ),
)  # fmt: skip
