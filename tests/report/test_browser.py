"""The report in a real browser: it asks the network for nothing, complains of nothing, and does what a reader tries."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headstart.catalog import BASELINES, cards
from headstart.report import report
from headstart.report.serve import Server
from tests.report.conftest import Visit
from tests.report.folders import HOSTILE, curve, metrics, write_run

pytestmark = pytest.mark.slow
Open = Callable[..., Visit]
RUN = "r-causal-lm-tiny-0"


STATE = """(id) => {
  const e = document.getElementById(id);
  return e && { open: e.tagName !== 'DETAILS' || e.open, top: e.getBoundingClientRect().top };
}"""


def run_section(visit: Visit) -> Any:
    """The section of the first run, opened by its link, its large chart drawn."""
    visit.page.click(f"#runs-table a[href='#{RUN}']")
    visit.page.wait_for_selector(f"#{RUN}--c0 [data-ready]")
    return visit.page.locator(f"#{RUN}")


def scale(visit: Visit, chart: str = f"{RUN}--c0", axis: str = "x") -> list[float]:
    """What a chart shows of an axis."""
    found = visit.page.evaluate("([id, axis]) => { const s = document.getElementById(id).chart.scales[axis]; return [s.min, s.max]; }", [chart, axis])
    return [float(value) for value in found]


def test_nothing_is_asked_of_the_network_and_nothing_complained_of(visit: Open, page: Path) -> None:
    seen = visit(page)
    seen.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for y in range(0, seen.page.evaluate("document.documentElement.scrollHeight"), 700):
        seen.page.evaluate(f"scrollTo(0, {y})")
        seen.page.wait_for_timeout(20)
    assert seen.page.locator("[data-ready]").count() > 20, "the charts are drawn"
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []


def test_hostile_names_samples_and_settings_are_text(visit: Open, page: Path) -> None:
    seen = visit(page)
    seen.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    seen.page.wait_for_timeout(200)
    assert seen.page.title().startswith("headstart report")
    assert seen.page.locator("img[src='x'], img[onerror]").count() == 0
    assert seen.page.locator("script").count() == 2
    shown = seen.page.locator("#run-sections").inner_text()
    assert HOSTILE.split("\u2028")[0].strip() in shown
    assert "\u202e" not in shown, "a mark that turns the direction of writing would reverse what stands behind it"


def test_the_policy_stops_a_script_that_slipped_through(visit: Open, page: Path, tmp_path: Path) -> None:
    """Were something not escaped one day: neither an inline script nor a handler nor a request would work."""
    broken = tmp_path / "broken.html"
    image = "<img src='https://example.invalid/x' onerror=\"document.title='ran'\">"
    inserted = f"<script>document.title='ran'</script>{image}<h2 id='slipped'>x</h2></main>"
    broken.write_text(page.read_text().replace("</main>", inserted, 1))
    seen = visit(broken)
    seen.page.wait_for_selector("#slipped")
    seen.page.wait_for_timeout(200)
    assert seen.page.title() != "ran"
    assert any("Content Security Policy" in text for text in seen.complaints)


def test_every_link_of_the_page_leads_to_something_that_is_then_seen(visit: Open, page: Path) -> None:
    seen = visit(page)
    targets = seen.page.eval_on_selector_all("a[href^='#']", "(links) => [...new Set(links.map((a) => a.getAttribute('href')))]")
    assert f"#{RUN}" in targets
    for target in targets:
        seen.page.evaluate("(hash) => { location.hash = hash; }", target)
        seen.page.wait_for_timeout(30)
        state = seen.page.evaluate(STATE, target[1:])
        assert state is not None, f"{target} leads nowhere"
        assert state["open"], target
        assert state["top"] < 800, target
    assert all(url.startswith("#") for url in seen.page.eval_on_selector_all("a", "(links) => links.map((a) => a.getAttribute('href'))"))


def test_the_first_screen_says_what_helped_how_much_at_what_cost(visit: Open, page: Path) -> None:
    seen = visit(page, 1280, 800)
    headline = seen.page.locator("h1")
    assert headline.inner_text().startswith("causal-lm should help: +11.0 points of accuracy over a random start (+7.0 to +15.0), for 29")
    box = seen.page.locator(".findings tbody tr").nth(2).bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 800, "the first differences are seen without scrolling"


# charts


def test_hovering_says_the_values_at_that_step(visit: Open, page: Path) -> None:
    seen = visit(page)
    section = run_section(seen)
    plot = seen.page.locator(f"#{RUN}--c0 .u-over")
    x = seen.page.evaluate(f"document.getElementById('{RUN}--c0').chart.valToPos(200, 'x')")
    plot.hover(position={"x": x, "y": 60})
    assert section.locator(f"#{RUN}--c0 .at").inner_text() == "at step 200"
    assert section.locator(f"#{RUN}--c0 output").first.inner_text() == f"{curve(200, 400):.4g}"
    assert section.locator(f"#{RUN}--c1 .at").inner_text() == "at step 200", "the charts of a run share their cursor"


def test_dragging_zooms_all_charts_of_a_run_and_a_double_click_shows_all(visit: Open, page: Path) -> None:
    seen = visit(page)
    run_section(seen)
    whole = scale(seen)
    box = seen.page.locator(f"#{RUN}--c0 .u-over").bounding_box()
    assert box is not None
    seen.page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 50)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60, steps=5)
    seen.page.mouse.up()
    low, high = scale(seen)
    quarter = (whole[1] - whole[0]) / 4
    assert low == pytest.approx(whole[0] + quarter, abs=5)
    assert high == pytest.approx(whole[0] + 2 * quarter, abs=5)
    assert scale(seen, f"{RUN}--c1") == pytest.approx([low, high], abs=5)
    seen.page.mouse.dblclick(box["x"] + 30, box["y"] + 30)
    assert scale(seen) == whole


def test_the_legend_hides_and_shows_a_curve(visit: Open, page: Path) -> None:
    seen = visit(page)
    section = run_section(seen)
    button = section.locator(f"#{RUN}--c0 .legend button").nth(1)
    shown = f"document.getElementById('{RUN}--c0').chart.series[2].show"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert seen.page.evaluate(shown) is False
    button.click()
    assert seen.page.evaluate(shown) is True


def test_log_axes_and_other_axes(visit: Open, page: Path) -> None:
    seen = visit(page)
    section = run_section(seen)
    section.locator("[data-log=x]").click()
    section.locator("[data-log=y]").click()
    scales = f"document.getElementById('{RUN}--c0').chart.scales"
    assert seen.page.evaluate(f"[{scales}.x.distr, {scales}.y.distr]") == [3, 3]
    section.locator("[data-log=x]").click()
    section.locator("[data-axis]").select_option("flops")
    assert scale(seen) == pytest.approx([10 * 8_808_038_400, 400 * 8_808_038_400], rel=1e-3)
    section.locator("[data-axis]").select_option("tokens")
    assert scale(seen) == pytest.approx([20_480, 819_200], rel=1e-3)
    assert seen.complaints == []


def test_measured_points_have_a_chart_each_with_an_axis_of_its_own(visit: Open, page: Path) -> None:
    seen = visit(page)
    anchor = "e-two-comparison"
    for chart in ("c0", "c2"):
        seen.page.evaluate(f"location.hash = '{anchor}--{chart}'")
        seen.page.wait_for_selector(f"#{anchor}--{chart} [data-ready]")
    assert scale(seen, f"{anchor}--c0") == [0, 4e11]
    assert scale(seen, f"{anchor}--c2") == [50, 200]
    seen.page.focus(f"#{anchor}--c2 .plot")
    seen.page.keyboard.press("+")
    assert scale(seen, f"{anchor}--c2")[0] > 50
    assert scale(seen, f"{anchor}--c0") == [0, 4e11]
    seen.page.locator(f"#{anchor} [data-log=x]").click()
    assert scale(seen, f"{anchor}--c0") == [1e11, 4e11], "a logarithmic axis has no zero: the random start is left out"
    assert seen.complaints == []


def test_the_plateau_line_lies_in_the_chart_of_its_loss_and_nowhere_else(visit: Open, page: Path) -> None:
    seen = visit(page)
    run_section(seen)
    low, high = scale(seen, axis="y")
    assert low < 5.93 < high
    charts = json.loads(seen.page.locator("#data").text_content())[RUN]["charts"]
    assert [chart["title"] for chart in charts if chart["plateau"] == 5.93] == ["loss"]


def test_a_loss_that_never_came_near_its_plateau_is_drawn_with_it(visit: Open, tmp_path: Path) -> None:
    run = write_run(tmp_path / "high")
    (run / "metrics.jsonl").write_text("".join(json.dumps(record | {"loss": record["loss"] + 4}) + "\n" for record in metrics(400)))
    (run / "probes.jsonl").unlink()
    seen = visit(report(run, out=tmp_path / "page.html"))
    seen.page.wait_for_selector("#r-high--c0 [data-ready]")
    low, high = scale(seen, "r-high--c0", "y")
    assert low < 5.93
    assert high > 10


def test_a_table_stands_behind_each_chart(visit: Open, page: Path) -> None:
    seen = visit(page)
    section = run_section(seen)
    section.locator(f"#{RUN}--c0 details.data summary").click()
    rows = section.locator(f"#{RUN}--c0 details.data tbody tr")
    rows.first.wait_for()
    assert rows.count() == 40
    assert rows.nth(19).inner_text().split() == ["200", f"{curve(200, 400):.4g}", f"{curve(200, 400) + 0.15:.4g}"]


# keyboard, contrast, widths


def test_the_keyboard_reaches_and_uses_everything(visit: Open, page: Path) -> None:
    seen = visit(page)
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.className") == "skip"
    seen.page.keyboard.press("Enter")
    assert seen.page.evaluate("document.activeElement.id") == "main"
    run_section(seen)
    seen.page.focus(f"#{RUN}--c0 .plot")
    seen.page.keyboard.press("Home")
    seen.page.keyboard.press("ArrowRight")
    assert seen.page.locator(f"#{RUN}--c0 .at").inner_text() == "at step 20"
    spoken = seen.page.locator("div[aria-live]").inner_text()
    assert spoken.startswith("at step 20: training")
    seen.page.keyboard.press("+")
    assert scale(seen)[1] < 400
    seen.page.keyboard.press("0")
    assert scale(seen)[1] == 400
    seen.page.focus(f"#{RUN} > summary")
    seen.page.keyboard.press("Enter")
    assert seen.page.evaluate(f"document.getElementById('{RUN}').open") is False
    walked = []
    for _ in range(25):
        seen.page.keyboard.press("Tab")
        where = seen.page.evaluate("[document.activeElement.tagName, document.activeElement.getBoundingClientRect().width > 0]")
        walked.append(where)
    assert all(visible for _, visible in walked), "nothing that is not seen takes the focus"


def test_everything_has_a_name_for_a_screen_reader(visit: Open, page: Path) -> None:
    seen = visit(page)
    unnamed = seen.page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, [role=img], img, table')].filter((e) =>
            !(e.getAttribute('aria-label') || e.textContent.trim() || e.alt || e.title || e.closest('label') || e.caption))
            .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert seen.page.evaluate("document.documentElement.lang") == "en"
    levels = seen.page.eval_on_selector_all("h1, h2, h3, h4", "(all) => all.map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), "no level of headings is left out"


CONTRAST = """() => {
  const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const rgb = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const back = (e) => {
    for (let n = e; n; n = n.parentElement) {
      const c = rgb(getComputedStyle(n).backgroundColor);
      if (c.length === 3 || c[3] > 0.9) return c;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    const says = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!says || !e.checkVisibility() || e.closest('.sr, .skip, script, option')) continue;
    const a = light(rgb(getComputedStyle(e).color)), b = light(back(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([ratio.toFixed(2), e.className, e.textContent.trim().slice(0, 30)]);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(visit: Open, page: Path, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    seen = visit(page, color_scheme=scheme)
    seen.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    seen.page.wait_for_timeout(200)
    assert seen.page.evaluate(CONTRAST) == []


def test_the_switch_of_light_and_dark_wins_over_the_system_and_is_remembered(visit: Open, page: Path) -> None:
    seen = visit(page, color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = seen.page.evaluate(paper)
    seen.page.click("#theme")
    light = seen.page.evaluate(paper)
    assert dark != light
    seen.page.reload()
    assert seen.page.evaluate(paper) == light


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2200])
def test_no_width_makes_the_page_scroll_sideways(visit: Open, page: Path, width: int) -> None:
    seen = visit(page, width)
    seen.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    seen.page.wait_for_timeout(200)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_filters_leave_the_cards_that_fit(visit: Open, page: Path) -> None:
    seen = visit(page)
    every = seen.page.locator(".card:not([hidden])").count()
    assert every == len(BASELINES) + len(cards())
    seen.page.check("#filters [name=runs]")
    running = seen.page.locator(".card:not([hidden]) h3").all_inner_texts()
    assert {"causal-lm", "mlm", "electra"} <= set(running)
    assert len(running) < every
    seen.page.check("#filters [name=measured]")
    assert set(seen.page.locator(".card:not([hidden]) h3").all_inner_texts()) == {"causal-lm", "mlm", "electra"}
    seen.page.uncheck("#filters [name=runs]")
    seen.page.uncheck("#filters [name=measured]")
    seen.page.select_option("#filters [name=family]", "speech")
    families = seen.page.locator(".card:not([hidden])").evaluate_all("(cards) => cards.map((c) => c.dataset.family)")
    assert families
    assert set(families) == {"speech"}
    assert seen.page.locator("#filtered").inner_text() == f"{len(families)} shown"


# --serve


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A server of a folder with one run that goes on."""
    run = write_run(tmp_path / "runs" / "live", steps=400, status="running")
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics(400)[:20]))
    server = Server([tmp_path / "runs"], port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server, run
    server.shutdown()
    server.server_close()
    thread.join()


def append(run: Path, records: list[dict[str, Any]]) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def test_a_served_page_follows_the_run_and_keeps_the_readers_zoom(visit: Open, served: tuple[Server, Path]) -> None:
    server, run = served
    seen = visit(server.url)
    seen.page.wait_for_selector("#r-live--c0 [data-ready]")
    points = "document.getElementById('r-live--c0').chart.data[0].at(-1)"
    assert seen.page.evaluate(points) >= 200
    seen.page.evaluate("document.getElementById('r-live--c0').chart.setScale('x', { min: 50, max: 120 })")
    before = seen.page.locator("#runs-table td.num").nth(2).inner_text()
    append(run, metrics(400)[20:])
    seen.wait_until(f"document.querySelector('#runs-table td[data-label=Steps]').textContent === '400' && {points} === 400")
    assert before == "200"
    assert scale(seen, "r-live--c0") == [50, 120]
    write_run(run.parent / "another", steps=100, status="running")
    seen.page.wait_for_selector("#r-another", state="attached")
    assert scale(seen, "r-live--c0") == [50, 120], "a new run comes beside the old ones"
    assert seen.complaints == []
    assert {url for url in seen.requests if not url.startswith("data:")} == {server.url}


def test_a_page_whose_server_is_gone_says_so(visit: Open, served: tuple[Server, Path]) -> None:
    server, _ = served
    seen = visit(server.url)
    server.shutdown()
    server.server_close()
    seen.wait_until("document.getElementById('live-note').textContent.includes('gone')")


