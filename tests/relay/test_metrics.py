from prometheus_client import CollectorRegistry, generate_latest

from elizacloud.relay.metrics import Metrics
from tests.relay.conftest import Cloud, RawAgent, request


def shown(metrics: Metrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(metrics)
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
