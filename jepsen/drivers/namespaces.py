"""Driver `namespaces`: each host has a network namespace of its own, and a cable to one switch.

The switch is a bridge in a namespace, too, so that nothing of a run is in the machine's own network. What is
cut is a set of (port in, port out) in the switch; slow ways are classes of a port's queue (tc htb). It needs
root.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jepsen.drivers.network import CONTROL, Pair, Slow
from jepsen.system import CommandFailed, missing, run

_NAMES = Path("/run/netns")
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_PORT = 7001
_FIRST_NUMBER = 10
_FULL_RATE = "10gbit"

_SWITCH_RULES = """
table bridge jepsen {
    set cut { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        meta iifname . meta oifname @cut drop
    }
}
"""
_HOST_RULES = """
table inet jepsen {
    set broken { type ipv4_addr; }
    chain input {
        type filter hook input priority 0; policy accept;
        ip saddr @broken meta l4proto tcp reject with tcp reset
    }
}
"""
_BROKEN_SECONDS = 0.3


def reason_to_skip() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if reason := missing("ip", "nft", "tc", "nsenter"):
        return reason
    name = f"jepsen-{os.getpid()}-try"
    try:
        run("ip", "netns", "add", name)
        run("ip", "netns", "delete", name)
    except CommandFailed as error:
        return str(error)
    return ""


class Namespaces:
    """See Network."""

    delays = False  # the kernel may lack netem
    duplicates = False

    def __init__(self, nodes: Sequence[str], clients: Sequence[str]) -> None:
        self._prefix = f"jepsen-{os.getpid()}-"
        self._hosts = [*nodes, *clients, CONTROL]
        self._addresses = {
            host: f"10.99.0.{number}" for number, host in enumerate(self._hosts, _FIRST_NUMBER)
        }
        self._made: list[str] = []
        self._home = -1
        self._slow: set[Pair] = set()

    def address(self, node: str) -> str:
        """See Network."""
        return f"{self._addresses[node]}:{_PORT}"

    def command(self, host: str) -> list[str]:
        """See Network."""
        return ["nsenter", f"--net={_NAMES / self._name(host)}"]

    def environment(self, host: str) -> dict[str, str]:
        """See Network."""
        return {}

    async def open(self) -> None:
        """See Network."""
        for name in ("switch", *self._hosts):
            run("ip", "netns", "add", self._name(name))
            self._made.append(self._name(name))
        switch = self._name("switch")
        run("ip", "-n", switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        run("ip", "-n", switch, "link", "set", "br0", "up")
        for host in self._hosts:
            self._plug_in(host)
        self._nft("switch", _SWITCH_RULES)
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        _enter(_NAMES / self._name(CONTROL))

    async def cut(self, pairs: Collection[Pair]) -> None:
        """See Network."""
        cuts = [f"{_port(a)} . {_port(b)}" for a, b in sorted(pairs)]
        self._nft("switch", _replace("bridge", "cut", cuts))

    async def slow(self, ways: Mapping[Pair, Slow]) -> None:
        """See Network."""
        for pair in self._slow - set(ways):
            self._class("change", pair, _FULL_RATE)
        for pair, slow in ways.items():
            self._class("change", pair, f"{slow.rate * 8}bit")
        self._slow = set(ways)

    async def duplicate(self, pairs: Collection[Pair]) -> None:
        """See Network: not here."""
        raise NotImplementedError

    async def reset(self, pairs: Collection[Pair]) -> None:
        """See Network. Whoever sends a packet on one of these ways within a moment gets a reset for it."""
        targets = {target for _, target in pairs}
        for target in targets:
            sources = [self._addresses[a] for a, b in sorted(pairs) if b == target]
            self._nft(target, _replace("inet", "broken", sources))
        await asyncio.sleep(_BROKEN_SECONDS)
        for target in targets:
            self._nft(target, _replace("inet", "broken", ()))

    async def close(self) -> None:
        """See Network."""
        if self._home >= 0:
            _set_namespace(self._home)
            os.close(self._home)
            self._home = -1
        for name in self._made:
            run("ip", "netns", "delete", name)
        self._made.clear()

    def _name(self, host: str) -> str:
        return self._prefix + host

    def _plug_in(self, host: str) -> None:
        name, switch, port = self._name(host), self._name("switch"), _port(host)
        run("ip", "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", port, "netns", switch)
        run("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
        run("ip", "-n", name, "address", "add", f"{self._addresses[host]}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", link, "up")
        self._nft(host, _HOST_RULES)
        # what leaves the switch for this host: a class for each host that it can come from
        self._tc(f"qdisc add dev {port} root handle 1: htb")
        for other in self._hosts:
            if other != host:
                self._class("add", (other, host), _FULL_RATE)
                flow, source = self._flow(other), f"{self._addresses[other]}/32"
                self._tc(
                    f"filter add dev {port} parent 1: protocol ip u32 match ip src {source} flowid {flow}"
                )

    def _class(self, verb: str, pair: Pair, rate: str) -> None:
        source, target = pair
        flow = self._flow(source)
        self._tc(f"class {verb} dev {_port(target)} parent 1: classid {flow} htb rate {rate} quantum 60000")

    def _flow(self, source: str) -> str:
        return f"1:{_FIRST_NUMBER + self._hosts.index(source)}"

    def _tc(self, command: str) -> None:
        run(*self.command("switch"), "tc", *command.split())

    def _nft(self, host: str, commands: str) -> None:
        run(*self.command(host), "nft", "-f", "-", text=commands)


def _replace(family: str, name: str, elements: Sequence[str]) -> str:
    """Commands that replace all elements of a set at once."""
    commands = f"flush set {family} jepsen {name}\n"
    if elements:
        commands += f"add element {family} jepsen {name} {{ {', '.join(elements)} }}\n"
    return commands


def _port(host: str) -> str:
    return f"p-{host}"


def _enter(namespace: Path) -> None:
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        _set_namespace(descriptor)
    finally:
        os.close(descriptor)


def _set_namespace(descriptor: int) -> None:
    """Move this thread, and those that it starts from now on, into a network namespace."""
    # os.setns came with Python 3.12
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NEW_NETWORK) != 0:
        raise CommandFailed(f"setns: {os.strerror(ctypes.get_errno())}")
