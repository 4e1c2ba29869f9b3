"""What the ServerApp tells survives its death in the middle of a line."""

from __future__ import annotations

from pathlib import Path

from fedft.deployment.events import FILE, EventWriter, follow
from fedft.rounds.progress import Observer


def test_a_line_that_was_cut_off_is_no_event_and_takes_no_other_along(tmp_path: Path) -> None:
    EventWriter(tmp_path).answered("north", "update")
    with (tmp_path / FILE).open("a") as file:
        file.write('["round_finished", {"rou')
    EventWriter(tmp_path).answered("south", "update")
    EventWriter(tmp_path).failed("the end")
    assert list(follow(tmp_path, Observer(), start=0, alive=lambda: True)) == [
        ("answered", ["north", "update"]),
        ("answered", ["south", "update"]),
        ("failed", ["the end"]),
    ]
    assert len((tmp_path / FILE).read_text().splitlines()) == 4
