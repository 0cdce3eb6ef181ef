"""The report: one page, safe with hostile text, that shows what the views hold."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from pipeline.report.page import render, write_report
from pipeline.report.rows import questions, refusals
from tests.report.conftest import MakeRun

HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"


class Reader(HTMLParser):
    """Every start tag with its attributes, and the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_hostile_text_is_shown_and_never_obeyed(make_run: MakeRun) -> None:
    page = Reader(render(*make_run(word=HOSTILE), max_images=4))
    names = {name for name, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "form", "base", "a"}
    handlers = [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert handlers == []
    assert len(page.all("style")) == 1
    assert any("<script>alert(1)</script>" in text for text in page.text)


def test_nothing_is_fetched_and_every_picture_is_inside(make_run: MakeRun) -> None:
    page = Reader(render(*make_run(word=HOSTILE), max_images=4))
    addresses = [a[k] for _, a in page.tags for k in ("src", "href", "style", "action") if k in a]
    assert addresses
    assert all(re.match(r"data:image/jpeg;base64,|#q\d+-\d+x\d+$", str(a)) for a in addresses)


def test_the_policy_allows_exactly_the_style_that_is_there(make_run: MakeRun) -> None:
    text = render(*make_run(), max_images=1)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(a["content"] for a in Reader(text).all("meta") if "http-equiv" in a)
    assert f"style-src 'sha256-{digest}'" in str(policy)
    assert "default-src 'none'" in str(policy)
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_pictures_carry_nothing_but_pixels(make_run: MakeRun) -> None:
    text = render(*make_run(), max_images=1)
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", text)
    assert found
    for encoded in found:
        data = base64.b64decode(encoded)
        assert b"SECRET" not in data
        assert b"script" not in data
        with Image.open(io.BytesIO(data)) as image:
            assert not image.getexif()
            assert max(image.size) <= 1000


def test_every_reference_points_at_a_picture_of_the_page(make_run: MakeRun) -> None:
    page = Reader(render(*make_run(3), max_images=3))
    held = {f"#{a['id']}" for a in page.all("symbol")}
    assert {a["href"] for a in page.all("use")} == held
    assert len(held) == 3 * 2, "two different first views for each of three questions"


def test_boxes_lie_where_the_looks_were(make_run: MakeRun) -> None:
    page = Reader(render(*make_run(1), max_images=1))
    zoomed = {
        tuple(float(str(a[k])) for k in ("x", "y", "width", "height"))
        for a in page.all("rect")
        if a.get("class") == "zoomed"
    }
    assert zoomed == {(260, 160, 120, 110), (300, 200, 40, 30)}


def test_the_crop_is_cut_from_around_the_box(make_run: MakeRun) -> None:
    """The box is a red patch: the crop's middle is red, its rim is not."""
    text = render(*make_run(1), max_images=1)
    crop = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', text)[1]
    with Image.open(io.BytesIO(base64.b64decode(crop))) as image:
        assert image.size == (112, 84)
        red, green, blue = image.convert("RGB").getpixel((56, 42))
        assert red > 200
        assert max(green, blue) < 100
        rim = image.convert("RGB").getpixel((2, 2))
        assert abs(rim[0] - 235) + abs(rim[1] - 60) + abs(rim[2] - 40) > 60


def test_a_budget_that_shares_a_view_is_said_once(make_run: MakeRun) -> None:
    text = render(*make_run(1), max_images=1)
    assert text.count("same first view as 672") == 1
    assert len(Reader(text).all("details")) == 2


def test_the_same_run_gives_the_same_page(make_run: MakeRun) -> None:
    connection, run_dir = make_run(3)
    assert render(connection, run_dir, max_images=2) == render(connection, run_dir, max_images=2)


def test_the_gallery_is_limited_and_spread(make_run: MakeRun) -> None:
    connection, _ = make_run(9)
    connection.execute("UPDATE trajectories SET task = 'rare' WHERE sample_id LIKE '%photo-7%'")
    shown = questions(connection, 2)
    assert len(shown) == 2
    assert {q.task for q in shown} == {"plain", "rare"}
    assert [path.resolution for path in shown[0].paths] == [224, 672, 1024]


def test_each_reason_is_shown_before_any_twice(make_run: MakeRun) -> None:
    connection, _ = make_run(1)
    for n in range(5):
        values = [f"x{n}#0", "unclear" if n else "rare"]
        connection.execute(
            "INSERT INTO rejections VALUES ('r', ?, 224, 0, 'agent', ?, NULL)", values
        )
    assert {row.reason for row in refusals(connection, 3)} == {"plain", "rare", "unclear"}


@pytest.mark.parametrize("count", [0, 1])
def test_a_run_with_no_rows_or_no_pictures_still_has_a_page(make_run: MakeRun, count: int) -> None:
    connection, run_dir = make_run(1)
    if not count:
        for table in ("trajectories", "steps", "rejections", "shards", "runs"):
            connection.execute(f"DELETE FROM {table}")
    page = Reader(render(connection, run_dir.parent / "elsewhere", max_images=3))
    assert page.all("h1")
    assert not page.all("img")


def test_the_page_appears_whole_or_not_at_all(make_run: MakeRun, tmp_path: Path) -> None:
    connection, run_dir = make_run(1)
    out = write_report(connection, run_dir, tmp_path / "deep" / "r.html", max_images=1)
    assert [path.name for path in out.parent.iterdir()] == ["r.html"]
    assert out.read_text("utf-8").endswith("</html>\n")
