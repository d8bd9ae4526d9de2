"""The commands, their common options, and what they do with errors."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import click
from click.shell_completion import get_completion_class

from sartiq import APIConnectionError, AuthenticationError, Sartiq, SartiqError, __version__
from sartiq.cli.output import EXIT_CODES, Output, describe_error, find_exit_code, read_notes, write_json
from sartiq.cli.session import describe_default_url, describe_sign_in, is_id, open_client

P = ParamSpec("P")
INTERRUPTED = 130
TIMEOUT = click.FloatRange(min=0, min_open=True)
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


class Identifier(click.ParamType[str]):
    """An ID of the API. Without this check, a wrong one would be reported as a part of a path."""

    name = "id"

    def convert(self, value: str, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """Return the ID."""
        if not is_id(value):
            self.fail(
                f"{value!r} is not an ID such as 01990000-5eed-7000-8000-000a00000001.", parameter, context
            )
        return value


ID = Identifier()


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def with_client(command: Callable[Concatenate[Sartiq, Output, P], None]) -> Callable[..., None]:
    """Pass a client and an output to a command, and add the options that they need."""

    @functools.wraps(command)
    def run_command(
        url: str | None, organization: str | None, as_json: bool, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        try:
            with open_client(url, organization) as client:
                command(client, Output(as_json), *args, **kwargs)
        except AuthenticationError as error:
            error.add_note(describe_sign_in(url))
            raise
        except APIConnectionError as error:
            if note := describe_default_url(url):
                error.add_note(note)
            raise

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
    from sartiq.cli import accounts, assistants, exports, listen, products, review, shoot, shootings

    for module in (accounts, shoot, products, shootings, review, exports, listen, assistants):
        module.register(sartiq)
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console may not know each character of a name
            stream.reconfigure(errors="replace")
    try:
        result = sartiq.main(arguments, prog_name="sartiq", standalone_mode=False)
    except click.Abort as error:
        notes = read_notes(error.__cause__) if error.__cause__ else []
        click.echo("\n".join(["Interrupted.", *notes]), err=True)
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.ClickException as error:
        if as_json:
            print_error({"type": type(error).__name__, "message": error.format_message()})
        else:
            error.show()
        return error.exit_code
    except BrokenPipeError:
        return 1
    except SartiqError as error:
        if as_json:
            print_error(describe_error(error))
        else:
            click.echo("\n".join([f"Error: {error}", *read_notes(error)]), err=True)
        return find_exit_code(error)
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    # The code of `Exit` is returned like the result of a command, which is None.
    return result if isinstance(result, int) else 0


def print_error(data: dict[str, Any]) -> None:
    """Print an error as JSON. It goes to standard error, so that standard output has results only."""
    click.echo(write_json({"error": data}, sys.stderr), err=True)
