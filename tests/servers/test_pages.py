"""What bench/servers writes: a record that can be gone on with, Markdown, SVG."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench.common import Effort
from bench.servers import page, plot
from bench.servers.__main__ import write
from bench.servers.catalogue import PEERS
from bench.servers.environment import REQUIREMENTS
from bench.servers.figures import Figures
from bench.servers.record import Record
from bench.servers.visit import Seen
from bench.servers.works import MEMORY, ROW_1, ROW_64, ROWS_64, START, WORKS
from hypothesis import given
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"


def seen() -> list[Seen]:
    """Two servers that were measured, one that was not."""
    found = [Seen(0, "ray", ROW_64.name, {}, "not installed: <no> | space")]
    for number in range(3):
        for server, times in (("driftline", 1.0), ("mosec", 0.5)):
            load = {"rate": 1000 * times + number, "p50_ms": 0.2 / times, "p99_ms": 1 / times}
            found += [Seen(number, server, work.name, {**load, "failed": 0.0}) for work in WORKS]
            found.append(Seen(number, server, START, {"seconds": times}))
            found.append(Seen(number, server, MEMORY, {"rss_mb": 100.0, "pss_mb": 90.0}))
    found.append(Seen(0, "bentoml", ROW_64.name, {"rate": 10.0, "failed": 0.25}))
    return found


def test_the_page_says_what_was_measured_and_who_wins() -> None:
    text = "\n".join(page.markdown(Figures(seen()), PEERS, [], Effort(), "2026-11-24"))
    assert "| driftline | 1,001 ± 0% (0.2) |" in text
    assert "| 32,030 ± 0% |" in text, "32 rows a request, as rows"
    assert "- cold start: mosec (Rust front), 2.00 times better" in text
    assert "not installed: <no> \\| space" in text
    assert "25% failed" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| driftline |")}
    assert widths == {7, 6, 3}


def test_nobody_better_is_said_too() -> None:
    mine = [one for one in seen() if one.server == "driftline"]
    assert list(page.wins(Figures(mine), PEERS[1:])) == ["- Nowhere in what was measured."]


def test_the_plot_is_an_image_with_the_best_on_top() -> None:
    root = ElementTree.fromstring("\n".join(plot.svg(Figures(seen()), PEERS, "2026-11-24")))
    assert root.tag == f"{SVG}svg"
    panels = {panel[0].text: panel for panel in root.iter(f"{SVG}g")}
    names = [text.text for text in panels["cold start"].iter(f"{SVG}text") if text.get("text-anchor")]
    assert names == ["mosec (Rust front)", "driftline"]
    bars = [float(bar.get("width", 0)) for bar in panels["1 x 30 JSON, c=64"].iter(f"{SVG}rect")]
    assert 0 < bars[1] < bars[0]


@given(st.lists(st.floats(1e-3, 1e6), min_size=1))
def test_bars_stand_in_the_order_of_their_numbers_and_within_the_panel(values: list[float]) -> None:
    lengths = [plot.bar_length(one, min(values), max(values)) for one in sorted(values)]
    assert lengths == sorted(lengths)
    assert lengths[0] >= 0
    assert lengths[-1] <= plot.BAR * 1.0001


@pytest.mark.parametrize(("number", "text"), [(0.1234, "0.123"), (12.34, "12.3"), (123456.0, "123,456")])
def test_three_digits(number: float, text: str) -> None:
    assert plot.digits(number) == text


def test_all_three_files_are_written(tmp_path: Path) -> None:
    write(tmp_path, Figures(seen()), PEERS, Effort(), seen())
    document = json.loads((tmp_path / "peers.json").read_text())
    assert len(document["seen"]) == len(seen())
    assert document["servers"]["mosec"]["version"].startswith("mosec ")
    assert {path.name for path in tmp_path.iterdir()} == {"peers.json", "peers.md", "peers.svg"}


def test_a_run_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "run.jsonl"
    visits = {
        name: [Seen(0, name, ROW_1.name, {"rate": 1.0}), Seen(0, name, ROWS_64.name, {}, "it fell")]
        for name in ("a", "b")
    }
    record = Record(path)
    for name, found in visits.items():
        record.add(0, name, found)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], lines[4][:20]]))
    again = Record(path)
    assert (again.has(0, "a"), again.has(0, "b")) == (True, False)
    assert again.seen == visits["a"]
    again.add(0, "b", visits["b"])
    assert Record(path).seen == visits["a"] + visits["b"]


def test_each_peer_is_pinned() -> None:
    packaged = [peer for peer in PEERS if peer.package]
    assert {peer.name for peer in packaged} == {path.stem for path in REQUIREMENTS.glob("*.txt")}
    for peer in packaged:
        assert peer.version().split()[1][0].isdigit()
        pins = (REQUIREMENTS / f"{peer.name}.txt").read_text().splitlines()
        assert all("==" in pin for pin in pins)
