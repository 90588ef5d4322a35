"""What `doctor` says of Docker hosts."""

from pathlib import Path

from elizacloud.cli.checks.check import run_checks
from elizacloud.cli.checks.docker import docker_checks, sidecar_finding
from elizacloud.cli.checks.facts import Facts
from elizacloud.cli.context import Context
from elizacloud.headscale.preflight import Verdict
from elizacloud.runtime.docker.host import host_of
from elizacloud.settings import Settings


async def test_each_host_is_looked_at(tmp_path: Path) -> None:
    urls = [f"unix://{tmp_path}/{name}.sock" for name in ("local", "big")]
    chosen = Settings(data_dir=tmp_path, runtime="docker", docker_url=urls[0], docker_hosts={"big": urls[1]})

    findings = await run_checks(docker_checks(Facts(chosen, None, Context("http://127.0.0.1:1", None, "a test"))))

    assert [finding.verdict for finding in findings] == [Verdict.FAIL, Verdict.FAIL]
    assert [url for url, finding in zip(urls, findings, strict=True) if url in finding.cause] == urls


def test_the_host_without_the_sidecars_image_is_named() -> None:
    finding = sidecar_finding(host_of({}, None, None), "sidecar", "tcp://10.0.0.5:2376")

    assert finding.verdict is Verdict.WARN
    assert "tcp://10.0.0.5:2376" in finding.cause
    assert "ELIZACLOUD_DOCKER_URL=tcp://10.0.0.5:2376" in finding.fix
