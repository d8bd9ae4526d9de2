"""The commands, their common options, and what they do with errors."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import click
from click.shell_completion import get_completion_class

from sartiq import Sartiq, SartiqError, __version__
from sartiq.cli.output import EXIT_CODES, Output, describe_error, find_exit_code
from sartiq.cli.session import open_client

P = ParamSpec("P")
INTERRUPTED = 130
EPILOG = "\b" + EXIT_CODES


@click.group(
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="sartiq")
def sartiq() -> None:
    """Product photos in, approved images out.

    Sign in with `sartiq login`. Or set SARTIQ_URL, and SARTIQ_TOKEN (an API key) or SARTIQ_EMAIL and
    SARTIQ_PASSWORD.
    """


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def with_client(command: Callable[Concatenate[Sartiq, Output, P], None]) -> Callable[..., None]:
    """Pass a client and an output to a command, and add the options that they need."""

    @functools.wraps(command)
    def run_command(
        url: str | None, organization: str | None, as_json: bool, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        with open_client(url, organization) as client:
            command(client, Output(as_json), *args, **kwargs)

    decorated: Callable[..., None] = run_command
    for option in (
        click.option("--url", help="URL of the server.", metavar="URL"),
        click.option(
            "--organization",
            envvar="SARTIQ_ORGANIZATION",
            metavar="SLUG",
            help="Organization by slug or ID, or `personal`.",
        ),
        json_option,
    ):
        decorated = option(decorated)
    return decorated


@sartiq.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    For bash, add this line to ~/.bashrc:
      eval "$(sartiq completion bash)"
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(kind(sartiq, {}, "sartiq", "_SARTIQ_COMPLETE").source())


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from sartiq.cli import accounts, assistants, exports, listen, products, review, shoot

    for module in (accounts, shoot, products, review, exports, listen, assistants):
        module.register(sartiq)
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        result = sartiq.main(arguments, prog_name="sartiq", standalone_mode=False)
    except click.Abort:
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.ClickException as error:
        if as_json:
            print_error({"type": "UsageError", "message": error.format_message()})
        else:
            error.show()
        return error.exit_code
    except BrokenPipeError:
        return 1
    except SartiqError as error:
        if as_json:
            print_error(describe_error(error))
        else:
            click.echo(f"Error: {error}", err=True)
        return find_exit_code(error)
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    # The code of `Exit` is returned like the result of a command, which is None.
    return result if isinstance(result, int) else 0


def print_error(data: dict[str, Any]) -> None:
    """Print an error as JSON. It goes to standard error, so that standard output has results only."""
    click.echo(json.dumps({"error": data}, ensure_ascii=False), err=True)
