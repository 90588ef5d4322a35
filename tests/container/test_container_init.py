"""container-init in the two shells it is for, against fakes of tailscaled and of the tailscale command: every branch."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

ROOT = Path(__file__).parents[2]
INIT = ROOT / "container" / "container-init"
FAKES = Path(__file__).parent / "fakes"
TOOLS = ("cat", "env", "grep", "mkdir", "mkfifo", "mktemp", "rm", "sed", "sleep", "timeout", "python3")
"""What there is beside the shell; `sleep`, `grep` and `python3` are for fakes and agents."""

KEY_DEAD = "echo 'backend error: invalid key: authkey already used' >&2; exit 1"
WANTS_LOGIN = "echo; echo 'To authenticate, visit:'; echo; echo '  https://x/y'; exec sleep 60"
NO_ANSWER = "echo 'timeout waiting for Tailscale service to enter a Running state' >&2; exit 1"
AS_INIT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""PR_SET_CHILD_SUBREAPER: orphans come to it as they do to the first process of a container, whose signals are ignored by
nobody: what runs the tests may ignore some of them, and a shell never takes back what it was told to ignore."""


@dataclass
class Container:
    """A directory with everything that container-init finds in its container."""

    root: Path
    shell: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def state(self) -> Path:
        return self.root / "state"

    def __post_init__(self) -> None:
        for directory in (self.bin, self.state, self.root / "tmp"):
            directory.mkdir()
        for name in TOOLS:
            self.has(name)
        for fake in FAKES.iterdir():
            shutil.copy(fake, self.bin)
        self.environment = {
            "PATH": str(self.bin),
            "TMPDIR": str(self.root / "tmp"),
            "HEADSCALE_URL": "https://headscale.example",
            "HEADSCALE_AUTH_KEY": "hskey-auth-once",
            "CONTAINER_ID": "bcdfghjkm2345678",
            "TS_STATE_DIR": str(self.state),
            "TS_SOCKET": str(self.root / "run" / "tailscaled.sock"),
            "ELIZACLOUD_IP_FILE": str(self.root / "tmp" / "headscale-ip.txt"),
        }

    def has(self, name: str, target: str | None = None) -> None:
        found = target or shutil.which(name)
        assert found is not None, f"{name} is not installed"
        (self.bin / name).symlink_to(found)

    def up(self, *scripts: str) -> None:
        """What the calls of `tailscale up` do, one after the other."""
        for number, script in enumerate(scripts, 1):
            (self.bin / f"up.{number}").write_text(script)

    def calls(self, word: str) -> list[str]:
        return [line for line in self.told("tailscale.calls").splitlines() if f" {word} " in f" {line} "]

    def told(self, name: str) -> str:
        """What a fake wrote down; empty when it did not."""
        path = self.bin / name
        return path.read_text() if path.exists() else ""

    @contextlib.asynccontextmanager
    async def runs(self, *agent: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", AS_INIT, *self.shell, str(INIT), *agent),
            env={**self.environment, **environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def run(self, *agent: str, given: bytes = b"", **environment: str) -> Ended:
        """Run it to its end."""
        async with self.runs(*agent, **environment) as process:
            return await ended(process, given)


@dataclass(frozen=True)
class Ended:
    code: int
    printed: str
    said: str


async def ended(process: asyncio.subprocess.Process, given: bytes = b"") -> Ended:
    async with asyncio.timeout(20):
        printed, said = await process.communicate(given)
    assert process.returncode is not None
    return Ended(process.returncode, printed.decode(), said.decode())


async def line(process: asyncio.subprocess.Process) -> str:
    """The next line that the agent prints."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


def program(shell: str) -> tuple[str, ...]:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return (found, "sh") if shell == "busybox" else (found,)


@pytest.fixture(params=["dash", "busybox"])
def container(request: pytest.FixtureRequest) -> Iterator[Container]:
    shell = program(request.param)
    # A unix socket's path has at most 107 bytes, which pytest's own directories may pass.
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        yield Container(Path(directory), shell)


@dataclass
class ControlPlane:
    """Takes reports and re-keys, and remembers them."""

    statuses: Mapping[str, int] = field(default_factory=dict)
    taken: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        self.taken.append((request.path, request.headers.get("Authorization", ""), await request.text()))
        self.came.set()
        call = request.match_info["call"]
        body = {"headscaleUrl": "https://headscale.example", "headscaleAuthKey": "hskey-auth-new"}
        return web.json_response(
            body if call == "rekey" else {"status": "confirmed"}, status=self.statuses.get(call, 200)
        )


@pytest.fixture
async def control_plane() -> AsyncIterator[ControlPlane]:
    plane = ControlPlane()
    app = web.Application()
    app.router.add_post("/containers/{agent}/{call}", plane.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    plane.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield plane
    await runner.cleanup()


@pytest.fixture(params=["curl", "nc"])
def caller(request: pytest.FixtureRequest, container: Container) -> str:
    """The one program for HTTP that the container has."""
    if request.param == "curl":
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        container.has("curl")
    else:
        container.has("nc", program("busybox")[0])
    return str(request.param)


# Joining


async def test_it_joins_with_the_key_and_then_runs_the_agent(container: Container) -> None:
    seen = await container.run("/bin/sh", "-c", 'echo "agent $1"; exit 7', "sh", "runs")

    assert (seen.code, seen.printed) == (7, "agent runs\n")
    assert seen.said == "[elizacloud] on the tailnet as 100.64.0.7\n[elizacloud] the agent ended, with status 7\n"
    (up,) = container.calls("up")
    assert "--login-server=https://headscale.example" in up
    assert "--hostname=milaidy-bcdfghjkm2345678" in up
    assert "--timeout=60s" in up
    assert "accept-routes" not in up
    assert "advertise-tags" not in up
    assert container.told("keys") == "hskey-auth-once\n"
    assert "hskey-auth-once" not in container.told("tailscale.calls")
    assert (container.root / "tmp" / "headscale-ip.txt").read_text() == "100.64.0.7\n"


async def test_nothing_is_left_behind(container: Container) -> None:
    await container.run("/bin/sh", "-c", "exit 0")

    assert [path.name for path in (container.root / "tmp").iterdir()] == ["headscale-ip.txt"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(container.told("tailscaled.pid")), 0)


async def test_tailscaled_gets_a_fixed_port_the_state_and_none_of_our_secrets(container: Container) -> None:
    await container.run("/bin/sh", "-c", "exit 0", ELIZACLOUD_JOIN_TOKEN="join-token", ELIZACLOUD_GOMEMLIMIT="64MiB")

    argv, environment = container.told("tailscaled.argv").split("\n"), container.told("tailscaled.env")
    assert "--port=41641" in argv
    assert "--tun=userspace-networking" in argv
    assert f"--statedir={container.state}" in argv
    assert not any("socks" in word or "proxy" in word for word in argv)
    assert "GOMEMLIMIT=64MiB" in environment
    assert "TS_DEBUG_USE_DERP_HTTP" not in environment
    assert "hskey" not in environment
    assert "join-token" not in environment


async def test_a_server_without_tls_has_its_derp_without_tls(container: Container) -> None:
    await container.run("/bin/sh", "-c", "exit 0", HEADSCALE_URL="http://10.0.0.1:8080")

    assert "TS_DEBUG_USE_DERP_HTTP=1" in container.told("tailscaled.env")


async def test_a_spent_key_is_deleted(container: Container) -> None:
    key = container.state / "auth-key"
    key.write_text("hskey-auth-file\n")

    await container.run("/bin/sh", "-c", "exit 0", HEADSCALE_AUTH_KEY=f"file:{key}")

    assert container.told("keys") == "hskey-auth-file\n"
    assert not key.exists()


async def test_tailscales_own_names_are_understood(container: Container) -> None:
    del container.environment["HEADSCALE_AUTH_KEY"], container.environment["CONTAINER_ID"]

    seen = await container.run("/bin/sh", "-c", "exit 0", TS_AUTHKEY="hskey-auth-alias", TS_HOSTNAME="n" * 70)

    assert seen.code == 0
    assert container.told("keys") == "hskey-auth-alias\n"
    assert f"--hostname={'n' * 63} " in container.calls("up")[0]


async def test_it_comes_back_as_the_node_that_it_was_without_a_key(container: Container) -> None:
    (container.state / "tailscaled.state").write_text("{}")

    seen = await container.run("/bin/sh", "-c", "exit 0")

    assert seen.code == 0
    assert [call for call in container.calls("up") if "auth-key" in call] == []


async def test_a_node_that_the_server_forgot_joins_with_the_key_and_another_node_key(container: Container) -> None:
    (container.state / "tailscaled.state").write_text("{}")
    container.up(WANTS_LOGIN)

    seen = await container.run("/bin/sh", "-c", "exit 0")

    assert seen.code == 0
    joining = [call.split()[1] for call in container.told("tailscale.calls").splitlines()]
    assert joining[:3] == ["up", "logout", "up"]
    assert ["auth-key" in call for call in container.calls("up")] == [False, True]


async def test_a_node_that_is_new_or_known_is_not_logged_out(container: Container) -> None:
    assert (await container.run("/bin/sh", "-c", "exit 0")).code == 0
    (container.state / "tailscaled.state").write_text("{}")
    assert (await container.run("/bin/sh", "-c", "exit 0", HEADSCALE_AUTH_KEY="")).code == 0

    assert container.calls("logout") == []


async def test_a_node_without_a_key_is_not_logged_out(container: Container) -> None:
    (container.state / "tailscaled.state").write_text("{}")
    container.up(WANTS_LOGIN)

    assert (await container.run("/bin/sh", "-c", "exit 0", HEADSCALE_AUTH_KEY="")).code == 78

    assert container.calls("logout") == []


@pytest.mark.parametrize("key", ["hskey-auth-given", ""])
async def test_key_and_token_are_read_from_the_standard_input(container: Container, key: str) -> None:
    (container.state / "tailscaled.state").write_text("{}")
    container.up(WANTS_LOGIN)

    seen = await container.run(
        "/bin/sh",
        "-c",
        'echo "agent got $(cat)"',
        given=f"{key}\njoin-token\nrest".encode(),
        HEADSCALE_AUTH_KEY="stdin",
        ELIZACLOUD_JOIN_TOKEN="stdin",
    )

    if key:
        assert (seen.code, seen.printed) == (0, "agent got rest\n")
        assert container.told("keys") == f"{key}\n"
    else:
        assert (seen.code, seen.printed) == (78, "")
    assert list((container.root / "tmp").glob("tmp*")) == [], "the key is left behind"


async def test_a_standard_input_that_ends_too_early_is_64(container: Container) -> None:
    for given in (b"", b"hskey-auth-given\n"):
        seen = await container.run(
            "/bin/sh", "-c", "echo agent", given=given, HEADSCALE_AUTH_KEY="stdin", ELIZACLOUD_JOIN_TOKEN="stdin"
        )

        assert (seen.code, seen.printed) == (64, "")
        assert "the standard input has ended" in seen.said
        with pytest.raises(ProcessLookupError):
            os.kill(int(container.told("tailscaled.pid")), 0)


async def started(container: Container) -> int:
    """tailscaled's process id, as soon as it has one."""
    async with asyncio.timeout(20):
        while not (pid := container.told("tailscaled.pid")):
            await asyncio.sleep(0)
    return int(pid)


async def test_tailscaled_starts_while_the_key_is_on_its_way(container: Container) -> None:
    async with container.runs("/bin/cat", HEADSCALE_AUTH_KEY="stdin", ELIZACLOUD_JOIN_TOKEN="stdin") as process:
        await started(container)
        seen = await ended(process, b"hskey-auth-late\njoin-token\nrest")

    assert (seen.code, seen.printed) == (0, "rest")
    assert container.told("keys") == "hskey-auth-late\n"


ALL_BY_STDIN = dict.fromkeys(("HEADSCALE_AUTH_KEY", "ELIZACLOUD_JOIN_TOKEN", "ELIZACLOUD_AGENT_SECRETS"), "stdin")


async def give(process: asyncio.subprocess.Process, given: bytes) -> None:
    """Write it to its standard input, and return when it has been read."""
    assert process.stdin is not None
    process.stdin.write(given)
    async with asyncio.timeout(20):
        while unread(process.stdin.get_extra_info("pipe").fileno()):
            await asyncio.sleep(0)


def unread(stdin: int) -> int:
    """How many bytes lie in the pipe (pipe(7)); either end of it tells."""
    return int.from_bytes(fcntl.ioctl(stdin, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("code", [143, 69])
@pytest.mark.parametrize("given", [b"", b"hskey-auth-given\n", b"hskey-auth-given\njoin-token\nexport A=a\nexport B="])
async def test_who_waits_for_standard_input_can_be_stopped_and_sees_the_end_of_tailscaled(
    container: Container, given: bytes, code: int
) -> None:
    async with container.runs("/bin/cat", **ALL_BY_STDIN) as process:
        tailscaled = await started(container)
        await give(process, given)
        if code == 143:
            process.send_signal(signal.SIGTERM)
        else:
            os.kill(tailscaled, signal.SIGKILL)
        async with asyncio.timeout(20):
            assert await process.wait() == code

    with pytest.raises(ProcessLookupError):
        os.kill(tailscaled, 0)


async def test_what_comes_by_standard_input_is_whole_whatever_signal_came_in_between(container: Container) -> None:
    agent = 'trap "exit 9" USR2; echo "$A-$B"; while :; do sleep 0.05; done'

    async with container.runs("/bin/sh", "-c", agent, **ALL_BY_STDIN) as process:
        for part in (b"hskey-", b"auth-given\njoin-", b"token\n\nexport A='a\n", b"b'\nexport B=", b"c"):
            await give(process, part)
            process.send_signal(signal.SIGUSR1)
        assert process.stdin is not None
        process.stdin.close()
        printed = [await line(process), await line(process)]
        process.send_signal(signal.SIGUSR2)
        seen = await ended(process)

    assert (printed, seen.code) == (["a", "b-c"], 9)
    assert container.told("keys") == "hskey-auth-given\n"


async def test_an_agents_secrets_are_in_its_environment_alone(container: Container) -> None:
    script = b"export DISCORD_TOKEN='it'\\''s'\nexport MILADY_API_TOKEN=token\n"

    seen = await container.run(
        *("/bin/sh", "-c", 'echo "$DISCORD_TOKEN $MILADY_API_TOKEN $(cat)"'),
        given=b"hskey-auth-given\njoin-token\n" + script,
        HEADSCALE_AUTH_KEY="stdin",
        ELIZACLOUD_JOIN_TOKEN="stdin",
        ELIZACLOUD_AGENT_SECRETS="stdin",
    )

    assert (seen.code, seen.printed) == (0, "it's token \n")
    assert "DISCORD_TOKEN" not in container.told("tailscaled.env")
    assert container.told("keys") == "hskey-auth-given\n"


async def test_an_agent_does_not_run_without_its_secrets(container: Container) -> None:
    for given in (b"", b". /no/such/file\n"):
        seen = await container.run("/bin/sh", "-c", "echo agent", given=given, ELIZACLOUD_AGENT_SECRETS="stdin")

        assert seen.code != 0
        assert seen.printed == ""


# The way to its relays

NODES = """\
100.64.0.7   milaidy-bcdfghjkm2345678  tagged-devices  linux  -
100.64.0.2   relay-gone                tagged-devices  linux  offline, last seen 2d ago
100.64.0.1   relay-new                 tagged-devices  linux  -
100.64.0.3   relay-idle                tagged-devices  linux  idle, tx 92 rx 148
100.64.0.4   relay-known               tagged-devices  linux  active; direct 10.0.0.1:41641, tx 92 rx 148
fd7a:115c::5 relay-six                 tagged-devices  linux  -
100.64.0.6   relay-more                tagged-devices  linux  -
100.64.0.8   relay-fourth              tagged-devices  linux  -
100.64.0.9   relay-fifth               tagged-devices  linux  -

# Health check:
#     - Tailscale is tired
"""


async def pinged(container: Container, number: int) -> list[str]:
    """The first pings, when there are so many."""
    async with asyncio.timeout(20):
        while len(container.calls("ping")) < number:
            await asyncio.sleep(0)
    return container.calls("ping")


async def test_it_looks_for_the_way_to_relays_that_have_not_come_yet(container: Container) -> None:
    (container.bin / "status").write_text(NODES)

    async with container.runs("/bin/cat") as process:
        await pinged(container, 4)
        seen = await ended(process)

    relays = ["100.64.0.1", "fd7a:115c::5", "100.64.0.6", "100.64.0.8"]
    assert [call.split()[-1] for call in container.calls("ping")] == relays
    assert seen.code == 0
    assert seen.said == "[elizacloud] on the tailnet as 100.64.0.7\n[elizacloud] the agent ended, with status 0\n"
    assert container.calls("ip") == [], "a second process, for nothing"


async def test_a_relay_that_does_not_answer_is_given_up(container: Container) -> None:
    (container.bin / "status").write_text(NODES)
    (container.bin / "ping").write_text("""\
case " $* " in *" 100.64.0.1 "*) exec sleep 60 ;; esac
echo 'no matching peer' >&2
exit 1
""")

    async with container.runs("/bin/cat") as process:
        await pinged(container, 4)
        seen = await ended(process)

    assert seen.code == 0
    assert seen.said.count("\n") == 2


async def test_neither_the_agent_nor_its_end_waits_for_a_way(container: Container) -> None:
    (container.bin / "status").write_text(NODES)
    (container.bin / "ping").write_text(
        'echo $$ >"$here/ping.pid.new"; mv "$here/ping.pid.new" "$here/ping.pid"; exec sleep 60'
    )
    container.has("mv")
    agent = 'while [ ! -e "$1" ]; do sleep 0.01; done; exit 7'

    seen = await container.run("/bin/sh", "-c", agent, "sh", str(container.bin / "ping.pid"))

    assert seen.code == 7
    with pytest.raises(ProcessLookupError):
        os.kill(int(container.told("ping.pid")), 0)


async def test_an_address_that_is_not_told_with_the_nodes_is_asked_for(container: Container) -> None:
    (container.bin / "status").write_text("fd7a:115c::7  agent  tagged-devices  linux  -\n")

    seen = await container.run("/bin/sh", "-c", "exit 0")

    assert seen.code == 0
    assert "on the tailnet as 100.64.0.7" in seen.said


# What goes wrong


@pytest.mark.parametrize("known", [False, True])
async def test_without_a_node_and_without_a_key_it_asks_for_one_by_78(container: Container, known: bool) -> None:
    if known:
        (container.state / "tailscaled.state").write_text("{}")
        container.up(WANTS_LOGIN)

    seen = await container.run("/bin/sh", "-c", "echo agent", HEADSCALE_AUTH_KEY="file:/no/such/key")

    assert (seen.code, seen.printed) == (78, "")
    assert seen.said.count("\n") == 1
    assert "no pre-auth key; mint a new pre-auth key" in seen.said


async def test_a_dead_key_is_78_and_the_agent_does_not_run(container: Container) -> None:
    container.up(KEY_DEAD)

    seen = await container.run("/bin/sh", "-c", "echo agent")

    assert (seen.code, seen.printed) == (78, "")
    assert seen.said.count("\n") == 1
    assert "authkey already used; mint a new pre-auth key" in seen.said
    with pytest.raises(ProcessLookupError):
        os.kill(int(container.told("tailscaled.pid")), 0)


async def test_a_server_that_does_not_answer_is_75_and_the_agent_does_not_run(container: Container) -> None:
    container.up(NO_ANSWER)

    seen = await container.run("/bin/sh", "-c", "echo agent", ELIZACLOUD_JOIN_SECONDS="3")

    assert (seen.code, seen.printed) == (75, "")
    assert "cannot join the tailnet at https://headscale.example in 3 s: timeout waiting" in seen.said
    assert "--timeout=3s" in container.calls("up")[0]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("HEADSCALE_URL", "", "HEADSCALE_URL is not set"),
        ("CONTAINER_ID", "", "CONTAINER_ID is not set"),
        ("ELIZACLOUD_AGENT_PORT", "http", "ELIZACLOUD_AGENT_PORT is no number"),
        ("ELIZACLOUD_JOIN_TOKEN", "file:/no/such/token", "cannot read ELIZACLOUD_JOIN_TOKEN"),
        ("TMPDIR", "/no/such/directory", "cannot make a temporary directory"),
    ],
)
async def test_a_variable_that_is_wrong_is_64(container: Container, name: str, value: str, why: str) -> None:
    container.environment[name] = value

    seen = await container.run("/bin/sh", "-c", "echo agent")

    assert (seen.code, seen.printed) == (64, "")
    assert why in seen.said
    assert container.told("tailscaled.argv") == ""


async def test_a_tailscaled_that_does_not_start_is_69_with_its_last_words(container: Container) -> None:
    (container.bin / "tailscaled.fails").write_text("cannot open the state: disk full")

    seen = await container.run("/bin/sh", "-c", "echo agent")

    assert (seen.code, seen.printed) == (69, "")
    assert "cannot start tailscaled (status 1): cannot open the state: disk full" in seen.said


async def test_no_tailscaled_at_all_is_69(container: Container) -> None:
    (container.bin / "tailscaled").unlink()

    seen = await container.run("/bin/sh", "-c", "echo agent")

    assert (seen.code, seen.printed) == (69, "")
    assert "cannot start tailscaled (status 127)" in seen.said


# The control plane


async def test_the_address_is_reported_with_the_token(
    container: Container, caller: str, control_plane: ControlPlane
) -> None:
    token = container.root / "join-token"
    token.write_text("the-join-token\n")

    async with container.runs(
        "/bin/cat", ELIZACLOUD_API_URL=control_plane.url, ELIZACLOUD_JOIN_TOKEN=f"file:{token}"
    ) as process:
        async with asyncio.timeout(20):
            await control_plane.came.wait()
        seen = await ended(process)

    assert seen.code == 0
    assert control_plane.taken == [
        ("/containers/bcdfghjkm2345678/networking", "Bearer the-join-token", '{"headscaleIp": "100.64.0.7"}')
    ]
    assert seen.said == "[elizacloud] on the tailnet as 100.64.0.7\n[elizacloud] the agent ended, with status 0\n"


async def test_a_report_that_is_refused_is_said_and_the_agent_runs(
    container: Container, caller: str, control_plane: ControlPlane
) -> None:
    control_plane.statuses = {"networking": 409}

    async with container.runs("/bin/cat", ELIZACLOUD_API_URL=control_plane.url, ELIZACLOUD_JOIN_TOKEN="t") as process:
        assert process.stderr is not None
        async with asyncio.timeout(20):
            await process.stderr.readline()
            said = (await process.stderr.readline()).decode()
        seen = await ended(process)

    assert seen.code == 0
    assert "was not accepted" in said
    assert "(409)" in said


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://api.example"])
async def test_a_report_that_cannot_be_made_is_said_and_the_agent_runs(container: Container, url: str) -> None:
    container.has("nc", program("busybox")[0])

    async with container.runs("/bin/cat", ELIZACLOUD_API_URL=url, ELIZACLOUD_JOIN_TOKEN="t") as process:
        assert process.stderr is not None
        async with asyncio.timeout(20):
            await process.stderr.readline()
            said = (await process.stderr.readline()).decode()
        seen = await ended(process)

    assert seen.code == 0
    assert "the control plane finds it by itself" in said


async def test_a_dead_key_is_exchanged_when_the_control_plane_agrees(
    container: Container, caller: str, control_plane: ControlPlane
) -> None:
    container.up(KEY_DEAD)

    seen = await container.run(
        "/bin/sh", "-c", "echo agent", ELIZACLOUD_API_URL=control_plane.url, ELIZACLOUD_JOIN_TOKEN="jt"
    )

    assert (seen.code, seen.printed) == (0, "agent\n")
    assert control_plane.taken[0] == ("/containers/bcdfghjkm2345678/rekey", "Bearer jt", "")
    assert container.told("keys").split() == ["hskey-auth-once", "hskey-auth-new"]
    assert "hskey-auth-new" not in container.told("tailscale.calls")


async def test_a_dead_key_is_78_when_the_control_plane_does_not_agree(
    container: Container, caller: str, control_plane: ControlPlane
) -> None:
    control_plane.statuses = {"rekey": 409}
    container.up(KEY_DEAD)

    seen = await container.run(
        "/bin/sh", "-c", "echo agent", ELIZACLOUD_API_URL=control_plane.url, ELIZACLOUD_JOIN_TOKEN="jt"
    )

    assert (seen.code, seen.printed) == (78, "")
    assert "authkey already used" in seen.said


# The agent


async def test_the_agent_gets_standard_input_and_no_key(container: Container) -> None:
    seen = await container.run(
        "/bin/sh", "-c", "read -r given; echo $given; env", given=b"by stdin\n", TS_AUTHKEY="hskey-auth-other"
    )

    assert seen.printed.startswith("by stdin\n")
    assert "CONTAINER_ID=bcdfghjkm2345678" in seen.printed
    assert "hskey" not in seen.printed


async def test_another_port_is_mapped_and_the_mapping_is_taken_back(container: Container) -> None:
    await container.run("/bin/sh", "-c", "exit 0", ELIZACLOUD_AGENT_PORT="3000")
    assert "--tcp=2138 tcp://127.0.0.1:3000" in container.calls("serve")[-1]

    await container.run("/bin/sh", "-c", "exit 0")
    assert container.calls("serve")[-1].endswith("serve reset")

    await container.run("/bin/sh", "-c", "exit 0")
    assert len(container.calls("serve")) == 2


@pytest.mark.parametrize(
    ("sent", "arrives"), [("TERM", "TERM"), ("HUP", "HUP"), ("USR1", "USR1"), ("USR2", "USR2"), ("INT", "TERM")]
)
async def test_signals_pass_to_the_agent(container: Container, sent: str, arrives: str) -> None:
    agent = f"trap 'echo got {arrives}; exit 9' {arrives}; echo ready; while :; do sleep 0.05; done"

    async with container.runs("/bin/sh", "-c", agent) as process:
        assert await line(process) == "ready"
        process.send_signal(getattr(signal, f"SIG{sent}"))
        seen = await ended(process)

    assert (seen.code, seen.printed) == (9, f"got {arrives}\n")


async def test_signals_that_the_agent_survives_do_not_end_it(container: Container) -> None:
    agent = "trap 'echo got' USR1; trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"

    async with container.runs("/bin/sh", "-c", agent) as process:
        assert await line(process) == "ready"
        for _ in range(3):
            process.send_signal(signal.SIGUSR1)
            assert await line(process) == "got"
        process.send_signal(signal.SIGTERM)
        seen = await ended(process)

    assert seen.code == 9


async def test_an_agent_that_is_killed_is_told_apart_by_its_status(container: Container) -> None:
    seen = await container.run("/bin/sh", "-c", "kill -KILL $$")

    assert seen.code == 128 + signal.SIGKILL


async def test_orphans_of_the_agent_are_reaped(container: Container) -> None:
    async with container.runs("/bin/sh", "-c", "(sleep 0.01 & echo $!); read -r _") as process:
        orphan = int(await line(process))
        async with asyncio.timeout(20):
            while Path(f"/proc/{orphan}").exists():
                await asyncio.sleep(0)
        await ended(process)


async def test_it_can_be_stopped_while_it_joins(container: Container) -> None:
    container.up('echo started >"$here/up.started"; exec sleep 60')

    async with container.runs("/bin/sh", "-c", "echo agent") as process:
        async with asyncio.timeout(20):
            while not container.told("up.started"):
                await asyncio.sleep(0)
        process.send_signal(signal.SIGTERM)
        seen = await ended(process)

    assert (seen.code, seen.printed, seen.said) == (143, "", "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(container.told("tailscaled.pid")), 0)


async def test_when_tailscaled_ends_the_agent_is_ended(container: Container) -> None:
    agent = "trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.05; done"

    async with container.runs("/bin/sh", "-c", agent) as process:
        assert await line(process) == "ready"
        os.kill(int(container.told("tailscaled.pid")), signal.SIGKILL)
        seen = await ended(process)

    assert (seen.code, seen.printed) == (69, "told\n")
    assert "tailscaled ended by itself, and the agent was ended" in seen.said


async def test_an_agent_without_a_tailnet_that_does_not_listen_is_killed(container: Container) -> None:
    async with container.runs(
        "/bin/sh", "-c", "trap '' TERM; echo ready; exec sleep 60", ELIZACLOUD_KILL_SECONDS="0.1"
    ) as process:
        assert await line(process) == "ready"
        os.kill(int(container.told("tailscaled.pid")), signal.SIGKILL)
        seen = await ended(process)

    assert seen.code == 69


async def test_without_an_agent_it_is_a_sidecar_until_it_is_told_to_end(container: Container) -> None:
    async with container.runs() as process:
        assert process.stderr is not None
        async with asyncio.timeout(20):
            assert b"on the tailnet" in await process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        seen = await ended(process)

    assert (seen.code, seen.said) == (143, "")


async def test_a_sidecar_whose_tailscaled_ends_is_69(container: Container) -> None:
    async with container.runs() as process:
        assert process.stderr is not None
        async with asyncio.timeout(20):
            assert b"on the tailnet" in await process.stderr.readline()
        os.kill(int(container.told("tailscaled.pid")), signal.SIGKILL)
        seen = await ended(process)

    assert seen.code == 69
    assert "tailscaled ended by itself" in seen.said


async def test_tailscaleds_log_goes_where_it_is_wanted(container: Container) -> None:
    seen = await container.run("/bin/sh", "-c", "exit 0", ELIZACLOUD_TAILSCALED_LOG="-")

    assert "Backend" not in seen.said  # what it says before it listens is kept for the reason alone
    assert seen.code == 0


def test_it_is_executable_and_shellcheck_has_nothing_to_say() -> None:
    assert INIT.stat().st_mode & stat.S_IXUSR
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")

    checked = subprocess.run([shellcheck, "--shell=sh", INIT], capture_output=True, text=True, check=False)

    assert checked.stdout == ""
    assert checked.returncode == 0
