"""`kvctl`: the command-line tool for people who use or operate a cluster."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

# its lines about connections that come and go are no message for a person
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from kvstore.errors import KVError
from kvstore.kvctl.failures import (
    EXIT_CODES,
    FILES,
    INTERRUPTED,
    NOBODY_READS,
    TERMINATED,
    USAGE,
    exit_code,
)
from kvstore.kvctl.groups import CommandGroup, FittingContext
from kvstore.kvctl.inputs import InputFailed
from kvstore.kvctl.interrupts import Interrupts, Terminated, interrupts
from kvstore.kvctl.invocation import DEFAULT_ENDPOINTS, Invocation
from kvstore.kvctl.output import OutputFailed, broken, flush, harmless, silence

_COMMANDS = {
    "buckets": "listing:buckets",
    "cluster": "cluster:cluster",
    "count": "listing:count",
    "counters": "counters:counters",
    "data": "data:data",
    "delete": "keys:delete",
    "explain": "explain:explain",
    "export": "files:export",
    "get": "keys:get",
    "hints": "hints:hints",
    "import": "files:import_",
    "put": "keys:put",
    "repair": "repair:repair",
    "ring": "nodes:ring",
    "scan": "listing:scan",
    "status": "nodes:status",
    "watch": "nodes:watch",
}
"""Where each command is: loaded when it is called, since gRPC alone takes a third of a second."""

_COMPLETE = "_KVCTL_COMPLETE"
"""What a shell sets that asks for completions."""

_EXAMPLES = """
\b
Examples:
  kvctl cluster start
  kvctl put carts user:1 '{"items": 3}'
  kvctl get carts user:1
  kvctl import airports.jsonl --key icao --bucket airports
"""

_COMPLETION = """
\b
Completion, for bash (zsh and fish likewise):
  eval "$(_KVCTL_COMPLETE=bash_source kvctl)"
"""

_WIDEST = 80
_NARROWEST = 30
"""Characters that help is set for; click itself sets it for 50 where a terminal has fewer."""


class _Commands(CommandGroup):
    """The commands; each takes `-o`, too, so that it may stand behind them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click.Group."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click.Group."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"kvstore.kvctl.{module}"), name)
        _add_output(command)
        return command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Command."""
        formatter.write_paragraph()
        formatter.write_text(_EXAMPLES)
        with formatter.section("Exit codes"):
            formatter.write_dl(list(EXIT_CODES.items()))
        formatter.write_paragraph()
        formatter.write_text(_COMPLETION)


def _output_option(*, default: str | None, callback: Callable[..., Any] | None = None) -> click.Option:
    return click.Option(
        ["-o", "--output"],
        type=click.Choice(["table", "json"]),
        default=default,
        show_default=default is not None,
        expose_value=callback is None,
        callback=callback,
        help="Form.",
    )


def _add_output(command: click.Command) -> None:
    """Let a command, or those in it, take the option as well, and be told of in any width."""
    command.context_class = FittingContext
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _add_output(each)
    elif not any("-o" in parameter.opts for parameter in command.params):
        command.params.append(_output_option(default=None, callback=_set_output))


def _set_output(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    found = context.find_object(Invocation)
    if value is not None and found is not None:
        found.output = value


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--endpoints",
    envvar="KVCTL_ENDPOINTS",
    help=f"HOST:PORT,... of some nodes; by default the local cluster here, else {DEFAULT_ENDPOINTS}.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds for each request.",
)
@click.version_option(package_name="kvstore")
@click.pass_context
def kvctl(context: click.Context, endpoints: str | None, timeout: float, output: str) -> None:
    """Use and operate a kvstore cluster."""
    context.obj = Invocation(endpoints, timeout, output)


kvctl.params.append(_output_option(default="table"))


def main(own_process: bool = False) -> None:
    """Run kvctl; an error is one line on stderr and an exit code. `own_process` ends with it."""
    if own_process:
        atexit.register(gc.freeze)  # else a fifth of its time is a last look for garbage
    if sys.stderr is None:  # closed by whoever called it
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        _complain("the output cannot be written: it is closed")
        sys.exit(FILES)
    if _COMPLETE in os.environ:
        kvctl(complete_var=_COMPLETE)
    with interrupts(until_the_end=own_process) as handler:
        code = _run(handler)
    sys.exit(code)


def _run(handler: Interrupts) -> int:
    """Run the command, see that its output is written, and return the exit code."""
    try:
        code = _command()
        flush()
        handler.ending = True
    except BrokenPipeError:
        code = NOBODY_READS
    except OutputFailed as error:
        _complain(str(error))
        code = FILES
    except KeyboardInterrupt as stop:
        handler.ending = True
        # of what was left in the middle, such as a coroutine that had not begun
        warnings.simplefilter("ignore")
        _complain("terminated" if isinstance(stop, Terminated) else "interrupted")
        code = TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    try:
        flush()
    except (BrokenPipeError, OutputFailed):
        silence(sys.stdout)
    return code


def _command() -> int:
    """What the command returns or exits with; raises what `_run` turns into a code."""
    try:
        # not kvctl(), which ends with 1 when nobody reads its output
        columns = shutil.get_terminal_size((_WIDEST, 24)).columns
        width = max(min(columns, _WIDEST) - 2, _NARROWEST)
        with kvctl.make_context("kvctl", sys.argv[1:], terminal_width=width) as context:
            kvctl.invoke(context)
        return 0
    except click.exceptions.Exit as done:  # of --help and --version
        return done.exit_code
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except click.ClickException as error:
        _explain_usage(error)
        return USAGE
    except KVError as error:
        _complain(str(error))
        return exit_code(error)
    except BrokenPipeError:
        raise
    except OSError as error:  # what commands read and write has errors of its own: this is click's output
        raise OutputFailed(error.filename or "the output", error) from error
    except InputFailed as error:
        _complain(str(error))
        return FILES


def _explain_usage(error: click.ClickException) -> None:
    """As click shows it, but no line is broken within a word."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    said = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        usage = context.get_usage()
        _tell(f"{usage}\n" + broken(f"Try '{context.command_path} --help' for help.", sys.stderr) + "\n")
        takes_words = any(isinstance(each, click.Argument) for each in context.command.params)
        if isinstance(error, click.NoSuchOption) and takes_words:
            said += " Words that begin with - and are no option come after --."
    _tell(broken(harmless(f"Error: {said}"), sys.stderr))


def _complain(text: str) -> None:
    _tell(broken(harmless(f"kvctl: {text}"), sys.stderr))


def _tell(text: str) -> None:
    try:
        click.echo(text, err=True)
    except OSError:
        silence(sys.stderr)  # there is nobody left to tell


if __name__ == "__main__":
    main(own_process=True)
