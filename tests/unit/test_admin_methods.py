"""A method of Admin is served, asked and simulated by being in one table; a command of kvctl is offered."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

import click

from kvstore import kvctl
from kvstore.kvctl.main import kvctl as program
from kvstore.v1 import admin_pb2 as pb
from kvstore.wire.admin import METHODS


def test_every_method_of_the_service_is_in_the_table_with_its_message() -> None:
    described = pb.DESCRIPTOR.services_by_name["Admin"].methods
    assert {m.name: m.input_type for m in described} == {m.name: m.request.DESCRIPTOR for m in METHODS}


def reachable(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from reachable(below)


def test_every_command_that_is_defined_can_be_called() -> None:
    modules = [import_module(f"kvstore.kvctl.{found.name}") for found in pkgutil.iter_modules(kvctl.__path__)]
    defined = [thing for m in modules for thing in vars(m).values() if isinstance(thing, click.Command)]
    assert {id(command) for command in defined} <= {id(command) for command in reachable(program)}
