"""Runs Autobahn's cases against a WebSocket server, and prints a line of JSON about each: `python autobahn.py ws://... [CASE]...`

A program of its own, since the runner's threads would not follow a test into a network namespace.
"""

from __future__ import annotations

import asyncio
import json
import sys

import kosoku

LEFT_OUT = ["9.*", "12.*", "13.*"]
"""Speed and compression: minutes, and nothing that a pipe could change."""


async def main(url: str, cases: list[str]) -> None:
    try:
        results = await kosoku.run_fuzzingclient(url, cases=cases or None, exclude_cases=LEFT_OUT)
    except kosoku.FailureError as error:
        results = error.results
    for result in results:
        print(
            json.dumps([result.case_id, result.behavior.value, result.behavior_close.value, result.remote_close_code])
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
