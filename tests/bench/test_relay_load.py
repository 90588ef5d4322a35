"""wrk's output, and the version that a program prints."""

from __future__ import annotations

import os

import pytest
from bench.relay.load import Failed, WrkOutput, cpu_seconds, parse_wrk
from bench.relay.programs import Cores, choose_cores
from bench.relay.tools import parse_version

SAID = """Running 2s test @ http://127.0.0.1:33449/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   622.31us  285.03us   8.33ms   91.30%
    Req/Sec    51.21k     3.67k   57.80k    70.00%
  Latency Distribution
     50%  622.00us
     75%  744.00us
     90%    0.86ms
     99%    1.24s
  101883 requests in 2.00s, 7.97MB read
Requests/sec:  50931.08
Transfer/sec:      3.98MB
"""


def test_the_figures_of_wrk() -> None:
    assert parse_wrk(SAID) == WrkOutput(101883, 50931.08, 622 * 1e-6, 1.24)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  Non-2xx or 3xx responses: 17\n", "Non-2xx"),
        ("  Socket errors: connect 0, read 3, write 0, timeout 0\n", "read 3"),
    ],
)
def test_wrong_answers_are_no_measurement(line: str, said: str) -> None:
    with pytest.raises(Failed, match=said):
        parse_wrk(SAID.replace("Requests/sec", f"{line}Requests/sec"))


@pytest.mark.parametrize(
    "text", ["", "unable to connect to 127.0.0.1:1 Connection refused", SAID.replace("101883", "0")]
)
def test_no_answer_is_no_measurement(text: str) -> None:
    with pytest.raises(Failed, match="measured nothing"):
        parse_wrk(text)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nginx version: nginx/1.22.1\n", "1.22.1"),
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12"),
        ("lib/python3.11/bin/envoy  version: 9e5580933739775e8b.2/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0"),
        ("Version:      3.7.15\nGo version:   go1.26.8", "3.7.15"),
        ("v2.11.7 h1:NyEUIH4ibcYAFhCgvhzB8tBkfHNUFSVTpMGhEsIgxzs=", "2.11.7"),
        ("error while loading shared libraries: liblua5.so", None),
    ],
)
def test_versions(text: str, version: str | None) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("available", "cores"),
    [
        ([0], Cores((0,), (0,), (0,))),
        ([3, 1], Cores((1,), (3,), (3,))),
        ([0, 1, 2, 3], Cores((0,), (1,), (3,))),
    ],
)
def test_a_relay_has_a_core_for_itself_where_there_are_two(available: list[int], cores: Cores) -> None:
    assert choose_cores(available) == cores


def test_unpinned_all_have_all_cores() -> None:
    assert choose_cores([1, 0], pinned=False) == Cores((0, 1), (0, 1), (0, 1))


def test_cpu_time_of_a_process_that_is_gone() -> None:
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    with pytest.raises(Failed, match="has ended"):
        cpu_seconds([gone])
