"""The last whole run as JSON: what README.md is written from, and what a later run can be held against. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.relay.figures import Figures, Part, Result


def to_json(parts: Sequence[Part], facts: Mapping[str, str]) -> dict[str, Any]:
    return {"facts": dict(facts), "parts": [_part_to_json(part) for part in parts]}


def _part_to_json(part: Part) -> dict[str, Any]:
    results = [
        {
            "name": result.name,
            "version": result.version,
            "rounds": {
                str(connections): [
                    {
                        "requestsPerSecond": round(each.requests_per_second, 1),
                        "p50Seconds": each.p50_seconds,
                        "p99Seconds": each.p99_seconds,
                        "cpuSecondsPerRequest": round(each.cpu_seconds, 9),
                    }
                    for each in rounds
                ]
                for connections, rounds in result.rounds.items()
            },
            "bodyBytesPerSecond": [round(each) for each in result.body_bytes_per_second],
            "failures": result.failures,
        }
        for result in part.results
    ]
    return {"name": part.name, "over": part.over, "results": results, "missing": part.missing}


def from_json(saved: Mapping[str, Any]) -> tuple[list[Part], dict[str, str]]:
    """What `to_json` made."""
    return [_part_from_json(part) for part in saved["parts"]], dict(saved["facts"])


def _part_from_json(saved: Mapping[str, Any]) -> Part:
    results = [
        Result(
            each["name"],
            each["version"],
            {
                int(connections): [
                    Figures(one["requestsPerSecond"], one["p50Seconds"], one["p99Seconds"], one["cpuSecondsPerRequest"])
                    for one in rounds
                ]
                for connections, rounds in each["rounds"].items()
            },
            each["bodyBytesPerSecond"],
            each["failures"],
        )
        for each in saved["results"]
    ]
    return Part(saved["name"], results, dict(saved["missing"]), saved["over"])
