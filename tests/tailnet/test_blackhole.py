"""The rules that keep tailnet addresses out of the host's network, in a kernel of their own to spoil."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from bench.netns import Namespace, namespace_with_a_way_out, why_not

from elizacloud.errors import Misconfigured
from elizacloud.tailnet import blackhole

NOBODY = 65534
UNKNOWN = ("100.127.255.254", "fd7a:115c:a1e0::ffff")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    if reason := why_not():
        pytest.skip(reason)
    with namespace_with_a_way_out() as (inside, _), inside.entered():
        yield inside


def has_a_way(ip: str) -> bool:
    """Whether the kernel knows where to send a packet to; none is sent."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ip, 9))
        except OSError:
            return False
        return True


def test_it_is_missed_then_put_then_there_and_taken_away_without_a_trace(namespace: Namespace) -> None:
    before = namespace.run("ip", "rule"), namespace.run("ip", "-6", "rule")
    assert all(map(has_a_way, UNKNOWN))
    with pytest.raises(Misconfigured, match=r"ip -4 rule add .* ip -6 rule add"):
        blackhole.check()

    for _ in range(2):
        blackhole.install()
        blackhole.check()
    assert not any(map(has_a_way, UNKNOWN))
    assert has_a_way("8.8.8.8")

    for _ in range(2):
        blackhole.remove()
    assert (namespace.run("ip", "rule"), namespace.run("ip", "-6", "rule")) == before


def test_the_commands_that_it_names_are_what_it_wants(namespace: Namespace) -> None:
    with pytest.raises(Misconfigured) as told:
        blackhole.check()
    for command in str(told.value).partition("as root: ")[2].split("; "):
        namespace.run(*command.split())
    blackhole.check()


@pytest.mark.parametrize(
    "rule",
    [
        "to 100.64.0.0/10 unreachable priority 40000",
        "to 100.64.0.0/11 blackhole priority 5300",
        "to 100.64.0.0/10 blackhole fwmark 7 priority 5300",
        "to 100.64.0.0/10 blackhole iif lo priority 5300",
        "to 100.64.0.0/10 blackhole uidrange 0-0 priority 5300",
        "not to 100.64.0.0/10 blackhole priority 5300",
        "from 10.0.0.0/8 to 100.64.0.0/10 blackhole priority 5300",
        "to 100.64.0.0/10 lookup 52 priority 5300",
    ],
)
def test_another_rule_is_not_enough(namespace: Namespace, rule: str) -> None:
    namespace.run("ip", "rule", "add", *rule.split())
    with pytest.raises(Misconfigured):
        blackhole.check()


def test_who_may_not_change_rules_is_told_so_and_may_look(namespace: Namespace) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give up its privileges for a test")
    script = (
        "from elizacloud.tailnet import blackhole\n"
        "try: blackhole.install()\n"
        "except Exception as error: print(error)\n"
        "blackhole.check()\n"
    )
    blackhole.install()
    done = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", "--clear-groups", sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "CAP_NET_ADMIN" in done.stdout
