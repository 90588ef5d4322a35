from prometheus_client import CollectorRegistry, generate_latest

from elizacloud.relay.exposition import Exposition
from elizacloud.relay.metrics import Metrics, State
from tests.relay.conftest import Cloud, RawAgent, request, soon, until


def shown(metrics: Metrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(Exposition(metrics))
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_a_histogram_counts_up_to_each_bound() -> None:
    metrics = Metrics()
    for seconds in (0.0004, 0.001, 0.3, 100.0):
        metrics.first_byte.observe(seconds)
    values = shown(metrics)
    name = "elizacloud_relay_first_byte_seconds"
    assert values[f'{name}_bucket{{le="0.0005"}}'] == 1
    assert values[f'{name}_bucket{{le="0.001"}}'] == 2
    assert values[f'{name}_bucket{{le="0.5"}}'] == 3
    assert values[f'{name}_bucket{{le="+Inf"}}'] == values[f"{name}_count"] == 4


async def test_what_a_worker_does_is_counted(cloud: Cloud) -> None:
    cloud.agent(RawAgent())
    client = await cloud.client()
    await client.ask(request())
    await client.ask(request())
    await client.ask(request(token="ec_no_no"))
    values = shown(cloud.metrics)
    assert values['elizacloud_relay_requests_total{outcome="2xx",upstream="agent"}'] == 2
    assert values['elizacloud_relay_requests_total{outcome="invalid_token",upstream="none"}'] == 1
    assert values['elizacloud_relay_dials_total{result="connected"}'] == 1
    assert values["elizacloud_relay_sent_bytes_total"] == 4
    assert values["elizacloud_relay_clients"] == 1
    assert values["elizacloud_relay_in_flight"] == 0
    assert values["elizacloud_relay_dial_seconds_count"] == 1


async def test_what_is_open_now_is_shown(cloud: Cloud) -> None:
    events = RawAgent(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    cloud.agent(events)
    stream = await cloud.client()
    stream.send(request())
    await soon(stream.reader.readuntil(b"data: 1\n\n"))
    cloud.agent(RawAgent(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))
    upgraded = await cloud.client()
    assert (await soon(upgraded.ask(request(headers="Connection: Upgrade\r\nUpgrade: x\r\n")))).status == 101
    cloud.agent(RawAgent())
    await cloud.ask(request())
    await cloud.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    values = shown(cloud.metrics)
    assert values['elizacloud_relay_streams{kind="events"}'] == 1
    assert values['elizacloud_relay_streams{kind="upgrade"}'] == 1
    name = "elizacloud_relay_upstream_connections"
    assert values[f'{name}{{state="busy",upstream="agent"}}'] == 2
    assert values[f'{name}{{state="idle",upstream="agent"}}'] == 1
    assert values[f'{name}{{state="idle",upstream="api"}}'] == 1
    stream.close()
    upgraded.close()
    await until(lambda: shown(cloud.metrics)[f'{name}{{state="busy",upstream="agent"}}'] == 0)
    values = shown(cloud.metrics)
    assert values['elizacloud_relay_streams{kind="events"}'] == values['elizacloud_relay_streams{kind="upgrade"}'] == 0


async def test_what_the_worker_rests_on_is_shown(cloud: Cloud) -> None:
    values = shown(cloud.metrics)
    for name in ("agents", "link_up", "netmap_known", "peers"):
        assert values[f"elizacloud_relay_{name}"] == 1
    assert values["elizacloud_relay_link_silent_seconds"] < 60
    cloud.netmap.lost()
    for worker in tuple(cloud.hub._workers.values()):
        worker.cut("outage")
    await until(lambda: not cloud.link.linked)
    values = shown(cloud.metrics)
    assert values["elizacloud_relay_netmap_known"] == values["elizacloud_relay_link_up"] == 0


def test_no_label_grows_with_use() -> None:
    metrics = Metrics()
    metrics.state = lambda: State({("agent", "idle"): 1}, 1, True, 0.0, True, 1)
    labels = {label for family in Exposition(metrics).collect() for sample in family.samples for label in sample.labels}
    assert labels <= {"upstream", "outcome", "result", "state", "kind", "le"}
