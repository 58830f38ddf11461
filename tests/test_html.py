"""The page of a report: what it is made from, what is measured for it, and how it behaves in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo

import unified_guards
from unified_guards.dynamo import measure
from unified_guards.guards.names import place
from unified_guards.report.html import model
from unified_guards.report.html.page import render

BASE, WITNESS, VOLATILE, TORCH, REMOVED = model.BASE, model.WITNESS, model.VOLATILE, model.TORCH, model.REMOVED


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
        self.negate = False

    def forward(self, x: torch.Tensor, factor: int = 2) -> torch.Tensor:
        x = x * factor
        return -self.layers(x) if self.negate else self.layers(x)  # the flag is read here


@pytest.fixture(autouse=True)
def uninstalled() -> Iterator[None]:
    yield
    unified_guards.uninstall()


def explained(target: Callable[..., Any], *calls: Callable[[Any], Any]) -> unified_guards.Report:
    """The report on ``target`` after these calls of what ``torch.compile`` made of it."""
    torch._dynamo.reset()
    with unified_guards.installed():
        compiled = torch.compile(target, backend="eager", dynamic=False)
        for call in calls:
            call(compiled)
    return unified_guards.explain(compiled)


def once(compiled: Any) -> None:
    compiled(torch.ones(2, 4))


def recompiled() -> unified_guards.Report:
    net = Net()

    def negate(compiled: Any) -> None:
        net.negate = True
        once(compiled)

    return explained(net, once, once, once, once, negate, once, once)


@pytest.fixture(scope="module")
def report() -> unified_guards.Report:
    """Of a module with two cache entries, the first of which was missed; measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIFIED_GUARDS_PROFILE", "1")
        return recompiled()


@pytest.fixture(scope="module")
def data(report: unified_guards.Report) -> dict[str, Any]:
    return json.loads(json.dumps(model.gather(report)))


def source_text(data: dict[str, Any], at: int) -> str:
    base, text, _ = data["sources"][at]
    return data["texts"][text].replace(BASE, source_text(data, base) if base >= 0 else "", 1)


def guard_text(data: dict[str, Any], at: int) -> str:
    text, _, _, sources = data["guards"][at]
    paths = [source_text(data, source) for source in sources]
    pieces = data["texts"][text].split(BASE)
    pieces[1::2] = [", ".join(paths) if piece == "s" else paths[int(piece)] for piece in pieces[1::2]]
    return "".join(pieces)


def row_of(data: dict[str, Any], text: str, entry: int = -1) -> list[Any]:
    (row,) = (row for row in data["entries"][entry]["guards"] if guard_text(data, row[0]) == text)
    return row


# ---- what the page is made from --------------------------------------------------------------------------------------


def test_every_guard_can_be_read_as_it_prints(report, data):
    for frame, entry in zip(report.frames, data["entries"], strict=True):
        assert [guard_text(data, row[0]) for row in entry["guards"]] == [str(item) for item in frame.guard_set]


def test_a_guard_has_its_maker_and_the_line_of_the_program(data):
    number = row_of(data, "L['self'].__dict__['negate'] is False")[0]
    ((maker, stack),) = data["guards"][number][2]
    file, line, function, code = data["lines"][data["stacks"][stack][-1]]
    assert data["makers"][maker] == "dynamo"
    assert data["files"][file] == __file__
    assert data["texts"][function] == "forward"
    assert data["texts"][code] == Path(__file__).read_text().splitlines()[line - 1].strip()
    assert "the flag is read here" in data["texts"][code]


def test_the_map_has_the_names_of_modules_and_not_where_torch_keeps_them(data):
    paths = [source_text(data, at) for at in range(len(data["sources"]))]
    (at,) = (at for at, path in enumerate(paths) if path.endswith(".values())[2].__dict__['_parameters']['weight']"))
    steps = []
    while at >= 0:
        at, _, label = data["sources"][at]
        steps += [data["texts"][label]] if label >= 0 else []
    assert steps[::-1] == ["self", "layers", "2", "weight"]


def test_what_is_remembered_and_what_is_evaluated_on_every_check_are_told_apart(data):
    assert row_of(data, "L['self'].__dict__['negate'] is False")[1] == WITNESS
    (about_the_argument,) = (
        row for row in data["entries"][-1]["guards"] if guard_text(data, row[0]).startswith("L['x'] is torch.Tensor")
    )
    assert about_the_argument[1] == VOLATILE


def test_what_is_remembered_has_facts(data):
    entry = data["entries"][-1]
    assert entry["remembered"]
    assert sum(row[4] for row in entry["guards"]) > len(entry["guards"]) / 2


def test_a_guard_that_torch_or_python_evaluates_is_left_to_torch():
    (frame,) = explained(lambda x: x + 1, once, once).frames
    item = unified_guards.guards.ir.guard(
        unified_guards.guards.ir.Test.TORCH_LEAF, (unified_guards.Source.frame(),), (object(), "a guard of torch's")
    )
    assert model._state(item, frame) == TORCH


def test_a_guard_that_is_not_checked_has_the_rule_that_says_why():
    def tile(x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 4) if x.shape[0] % 4 == 0 and x.shape[0] > 6 else x

    torch._dynamo.reset()
    with unified_guards.installed():
        compiled = torch.compile(tile, backend="eager", dynamic=True)
        compiled(torch.ones(8))
    (frame,) = unified_guards.explain(compiled).frames
    found = model.gather(unified_guards.explain(compiled))
    rows = {guard_text(found, row[0]): row for row in found["entries"][0]["guards"]}
    assert frame.removed
    for step in frame.removed:
        assert guard_text(found, rows[str(step.guard)][0]) == str(step.guard)
        assert rows[str(step.guard)][1] == REMOVED
        assert found["rules"][rows[str(step.guard)][6]] == step.rule
    assert len(found["entries"][0]["steps"]) == len(frame.removed)


def test_a_miss_has_a_time_the_guard_that_failed_and_what_it_found(report, data):
    oldest, newest = data["entries"][-1], data["entries"][0]
    ((at, text, guard, _),) = oldest["misses"]
    assert guard_text(data, guard) == "L['self'].__dict__['negate'] is False"
    assert "(found True)" in text
    assert oldest["at"] <= at <= newest["at"]
    assert report.frames[-1].recompile_reasons == (text,)


def test_entries_of_one_code_have_torchs_compile_ids(data):
    newest, oldest = (entry["id"] for entry in data["entries"])
    assert re.fullmatch(r"\d+/0", oldest) and re.fullmatch(r"\d+/1", newest)


def test_a_frame_that_stayed_torchs_says_why():
    frame = unified_guards.FrameReport("f (x.py:1)", None, left_because="a path is too deep")
    (entry,) = model.gather(unified_guards.Report("f", (frame,)))["entries"]
    assert entry["torch"] == "a path is too deep"
    assert entry["guards"] == []


def test_versions_of_an_aot_function_are_on_the_page_too(tmp_path):
    from functorch.compile import nop

    fast = unified_guards.aot_function(lambda x: x * 2 if x.shape[0] > 4 else x * 3, nop, dynamic=True)
    fast(torch.ones(3))
    fast(torch.ones(8))
    found = model.gather(fast.explain())
    assert len(found["entries"]) == 2
    assert "L['args'][0].size()[0] <= 4 (found 8)" in found["recompiles"][0]
    assert fast.explain().to_html(tmp_path / "aot.html").exists()


# ---- what is measured ------------------------------------------------------------------------------------------------


def test_nothing_is_measured_unless_asked_for():
    costs = recompiled().frames[-1].costs
    assert costs.check_ns is costs.in_place_ns is costs.torch_ns is None
    assert all(cost.ns is None for cost in costs.guards.values())


def test_with_the_switch_a_check_and_each_guard_have_times(report):
    for frame in report.frames:
        costs = frame.costs
        assert min(costs.in_place_ns, costs.check_ns, costs.exact_ns, costs.torch_ns) > 0
        assert 0 < costs.checks <= frame.counts[0]
        assert sum(cost.ns for cost in costs.guards.values()) > 0


def test_every_instruction_is_counted_to_one_guard(report):
    for frame in report.frames:
        costs = frame.costs.guards
        assert set(costs) == set(frame.checked)
        # A guard that is merged into the accessor before it is a row, but no instruction.
        assert sum(cost.instructions for cost in costs.values()) >= frame.instructions - len(frame.discriminators)
        assert sum(cost.facts for cost in costs.values()) == frame.facts


def frame_of(function: Callable[..., Any]) -> Any:
    torch._dynamo.reset()
    with unified_guards.installed():
        torch.compile(function, backend="eager")(torch.ones(2, 4))
    (frame,) = unified_guards.dynamo.guard_manager.entries_of(function.__code__)
    return frame


def test_measuring_leaves_every_count_as_it_was():
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    frame = frame_of(double)
    counts = ("roots", "held", "repaired", "recorded")
    before = frame.checker.counts, unified_guards.stats(), [frame.checker.witness[name] for name in counts[1:]]
    frame.checker.profile({"x": torch.ones(2, 4)}, 5)
    assert (
        frame.checker.counts,
        unified_guards.stats(),
        [frame.checker.witness[name] for name in counts[1:]],
    ) == before


def test_a_frame_that_does_not_pass_has_no_times_by_instruction():
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    checker = frame_of(double).checker
    assert checker.profile({"x": torch.ones(2, 4)}, 3)[2]
    assert checker.profile({"x": torch.ones(3)}, 3)[2] == []
    assert checker.check({"x": torch.ones(2, 4)})


def test_torchs_tree_takes_turns_with_ours_where_the_program_makes_its_checks(monkeypatch):
    monkeypatch.setenv("UNIFIED_GUARDS_PROFILE", "1")
    (short,) = explained(lambda x: x + 1, *[once] * 4).frames
    (long,) = explained(lambda x: x + 2, *[once] * 17).frames
    assert short.costs.torch_in_place_ns is None and short.costs.checks == 3
    assert long.costs.torch_in_place_ns > 0
    assert long.counts == (16, 16, 0, 0)
    assert long.costs.checks == 4 + 3  # the first of a later turn is left out, and eight are torch's


def test_what_torchs_tree_raises_where_it_is_measured_reaches_nobody():
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    class Raises:
        def check(self, f_locals: dict[str, Any]) -> bool:
            raise RuntimeError("not the user's")

    frame = frame_of(double)
    frame.build(measure.watch(frame, Raises(), None))
    frame.checker.call_before(measure.torch_first(frame, Raises()))
    ask = frame.checker.callable()
    assert [ask({"x": torch.ones(2, 4)}) for _ in range(8)] == [True] * 8
    assert not frame.measured.torch_in_place_ns


def test_what_measures_asks_the_oracle_too():
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    frame, told = frame_of(double), []
    oracle = measure.watch(frame, None, lambda f_locals, verdict: told.append(verdict))
    for verdict in (True, False):
        oracle({"x": torch.ones(2, 4)}, verdict)
    assert told == [True, False]


# ---- the file --------------------------------------------------------------------------------------------------------


def test_to_html_returns_the_path_and_overwrites(report, tmp_path):
    target = tmp_path / "guards.html"
    target.write_text("old")
    assert report.to_html(str(target)) == target
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_folder_that_does_not_exist_is_named(report, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere\. Make it first \(mkdir -p"):
        report.to_html(tmp_path / "nowhere" / "guards.html")


def test_no_text_of_the_program_ends_the_script(data):
    page = render({**data, "texts": [*data["texts"], "</script><script>alert(1)</script>"], "title": "<b>&"})
    assert "alert(1)</script>" not in page
    assert "<h1>&lt;b&gt;&amp;</h1>" in page


def test_what_stands_in_a_part_is_not_taken_for_a_place_of_the_template(data):
    assert "@@style@@" in render({**data, "title": "@@style@@"})


def test_the_page_names_nothing_to_load(report, tmp_path):
    page = report.to_html(tmp_path / "guards.html").read_text(encoding="utf-8")
    shell = re.sub(r'<script id="data".*?</script>', "", page, flags=re.S)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//|url\(|@import|fetch\(|XMLHttpRequest", shell)
    assert "default-src 'none'" in shell


# ---- the command -----------------------------------------------------------------------------------------------------


def explain(tmp_path: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "train.py").write_text(textwrap.dedent(script))
    return run_explain(tmp_path, *arguments, "train.py", "--own", "7")


def run_explain(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unified_guards", "explain", *arguments]
    env = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=300, check=False)


SCRIPT = """
    import sys
    import torch

    def main():
        model = torch.nn.Linear(2, 2)  # gone when the program ends
        step = torch.compile(lambda x: model(x) * 2, backend="eager")
        for _ in range(4):
            step(torch.ones(3, 2))

    main()
    print("arguments:", sys.argv[1:])
"""


def test_explain_reports_on_what_a_program_compiled_even_if_it_is_gone(tmp_path):
    done = explain(tmp_path, SCRIPT, "--html", "out.html")
    assert done.returncode == 0, done.stderr
    assert "arguments: ['--own', '7']" in done.stdout
    assert "<lambda> (" in done.stdout and "asked 3 times: 3 hits" in done.stdout
    assert f"written: {tmp_path / 'out.html'}" in done.stdout
    assert "model" in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_explain_says_what_a_step_costs_and_how_much_of_it_guards_are(tmp_path):
    done = explain(tmp_path, SCRIPT.replace("range(4)", "range(40)"))
    assert "A step, from one call of <lambda> to the next: " in done.stdout
    assert "guards take " in done.stdout and "the rest of its calls " in done.stdout
    assert "Torch's guards were timed many in a row alone: " in done.stdout
    assert "`python -m unified_guards bench --script train.py --own 7` measures" in done.stdout


def test_explain_passes_on_the_exit_status_and_reports_all_the_same(tmp_path):
    done = explain(tmp_path, SCRIPT + "    sys.exit(3)\n")
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "guards.html").exists()


def test_explain_shows_what_a_program_raises_and_reports_all_the_same(tmp_path):
    done = explain(tmp_path, SCRIPT + "    raise ValueError('the data is gone')\n")
    assert done.returncode == 1
    assert "ValueError: the data is gone" in done.stderr
    assert (tmp_path / "guards.html").exists()


def test_explain_names_the_functions_there_are_when_there_is_no_such_one(tmp_path):
    done = explain(tmp_path, SCRIPT, "--function", "forwards")
    assert done.returncode == 1
    assert "no compiled function is named 'forwards'. Compiled were: <lambda>." in done.stderr
    assert not (tmp_path / "guards.html").exists()


def test_explain_shows_errors_without_our_frames(tmp_path):
    done = explain(tmp_path, SCRIPT + "    raise ValueError('the data is gone')\n")
    assert "runpy" not in done.stderr and "unified_guards" not in done.stderr


@pytest.mark.parametrize("given", [["--html", "f.html"], ["--html=f.html"]])
def test_explain_refuses_its_options_behind_the_program(tmp_path, given):
    (tmp_path / "train.py").write_text("print('ran')")
    done = run_explain(tmp_path, "train.py", *given)
    assert done.returncode == 2 and "ran" not in done.stdout
    assert f"Run: python -m unified_guards explain {' '.join(given)} train.py (or" in done.stderr


def test_explain_passes_on_what_comes_behind_two_dashes(tmp_path):
    (tmp_path / "train.py").write_text("import sys; print(sys.argv[1:])")
    assert "['--html', 'f.html']" in run_explain(tmp_path, "train.py", "--", "--html", "f.html").stdout


def test_explain_says_so_when_nothing_was_compiled(tmp_path):
    done = explain(tmp_path, "print('hello')")
    assert done.returncode == 1
    assert "the program compiled nothing: it has to call torch.compile" in done.stderr


GIVEN_UP = """
    import torch

    def breaks(x):
        for _ in range(2):
            torch._dynamo.graph_break()
        return x

    torch.compile(breaks, backend="eager")(torch.ones(2))
"""


def test_explain_says_what_torch_gave_up_on(tmp_path):
    done = explain(tmp_path, GIVEN_UP)
    assert done.returncode == 1
    assert "torch compiled nothing of the program: breaks (" in done.stderr
    assert "graph break in a for/while loop" in done.stderr
    done = explain(tmp_path, GIVEN_UP + SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "breaks (" in done.stdout and "runs uncompiled: Call to `torch._dynamo.graph_break()`" in done.stdout


def test_explain_looks_for_the_folder_before_it_runs_the_program(tmp_path):
    done = explain(tmp_path, "print('ran')", "--html", "nowhere/guards.html")
    assert done.returncode == 2
    assert "there is no folder" in done.stderr and "ran" not in done.stdout


# ---- in a browser ----------------------------------------------------------------------------------------------------

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright drives the browser: pip install playwright"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium to open the page in (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(report: unified_guards.Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report.to_html(tmp_path_factory.mktemp("page") / "guards.html").as_uri()


class Opened:
    """A page, and what it complained of and asked for."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **options})
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector(".row")

    def search(self, words: str) -> list[str]:
        """What is found, as far as it is drawn."""
        from playwright.sync_api import expect

        before = self.page.text_content("#count")
        self.page.fill("#search", words)
        expect(self.page.locator("#count")).not_to_have_text(before)
        return self.page.locator(".row .text").all_text_contents()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Opened]:
    found = Opened(browser, address)
    yield found
    assert found.complaints == []
    found.page.close()


def choose_oldest(page: Any) -> None:
    page.locator(".entry[data-at='1']").click()


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.getAttribute('aria-label') || ''")


def test_the_page_opens_without_asking_for_anything_else(opened, address):
    assert opened.requests == [address]
    assert opened.page.locator(".entry").count() == 2


def test_search_shows_the_guards_that_have_all_the_words(opened):
    choose_oldest(opened.page)
    assert opened.search("['NEGATE'] false") == ["self.negate is False"]
    assert opened.search("no such guard") == []
    assert "Search with fewer words" in opened.page.inner_text("#guard-list")


def test_search_finds_a_line_of_the_program(opened):
    choose_oldest(opened.page)
    assert "self.negate is False" in opened.search("the flag is read here")
    assert all("test_html.py:" in text for text in opened.page.locator(".row .under").all_text_contents())


def test_a_state_can_be_chosen(opened):
    choose_oldest(opened.page)
    opened.page.select_option("#by-state", str(VOLATILE))
    under = opened.page.locator(".row .under").all_text_contents()
    assert under and all(text.startswith("volatile") for text in under)


def test_a_row_that_is_opened_by_key_shows_the_source_line(opened):
    choose_oldest(opened.page)
    opened.search("['negate']")
    opened.page.locator(".row summary").focus()
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_selector(".row[open] .body")
    body = opened.page.inner_text(".row .body")
    assert "# the flag is read here" in body
    assert "L['self'].__dict__['negate'] is False" in body
    assert "in the witness" in body


def test_the_map_goes_in_by_click_and_out_by_its_path(opened):
    choose_oldest(opened.page)
    page = opened.page
    page.locator(".cell[aria-label^='self,']").click()
    assert page.inner_text("#crumbs b") == "self"
    page.locator(".cell[aria-label^='layers,']").click()
    assert page.locator(".cell").count() >= 3
    page.locator("#crumbs button").first.click()
    assert page.inner_text("#crumbs b") == "forward"


def test_the_map_is_walked_by_keys(opened):
    choose_oldest(opened.page)
    page = opened.page
    page.locator(".cell").first.focus()
    first = focused(page)
    page.keyboard.press("ArrowRight")
    assert focused(page) not in ("", first)
    page.keyboard.press("Home")
    assert focused(page) == first
    page.keyboard.press("Enter")
    assert page.inner_text("#crumbs b") == first.partition(",")[0]
    assert focused(page) and focused(page) != first
    page.keyboard.press("Escape")
    assert page.inner_text("#crumbs b") == "forward"
    assert focused(page) == first


def test_only_one_field_of_the_map_is_a_stop_for_the_tab_key(opened):
    assert opened.page.locator(".cell[tabindex='0']").count() == 1


def test_a_field_of_the_map_can_be_listed(opened):
    choose_oldest(opened.page)
    page = opened.page
    page.locator(".cell[aria-label^='self,']").click()
    said = page.inner_text("#map-list")
    page.click("#map-list")
    assert page.inner_text("#count").startswith(said.removeprefix("List ").removesuffix(" guards") + " of ")


def test_recompiles_stand_on_a_time_line_with_the_guard_and_what_it_found(opened):
    page = opened.page
    assert page.locator(".timeline .missed").count() == 1
    assert page.locator(".timeline .made").count() == 2
    assert "L['self'].__dict__['negate'] is False (found True)" in page.inner_text(".events")


def test_recompiles_come_first_and_then_the_entries(opened):
    headings = opened.page.locator("main h2:visible").all_inner_texts()
    assert headings[:2] == ["Why torch compiled again", "Cache entries"]


def test_the_entry_whose_checks_took_longest_comes_first_and_is_chosen(browser, report, tmp_path):
    found = model.gather(report)
    for order in ((1, 0), (0, 1)):
        for entry, ns in zip(found["entries"], (order[0] * 1e6 + 1, order[1] * 1e6 + 1), strict=True):
            entry["times"]["in_place_ns"] = ns
        (tmp_path / "page.html").write_text(render(found))
        page = Opened(browser, (tmp_path / "page.html").as_uri()).page
        hottest = str(order.index(1))
        assert page.locator(".entry").first.get_attribute("data-at") == hottest
        assert page.locator(".entry[aria-pressed='true']").get_attribute("data-at") == hottest
        page.close()


def test_torchs_cost_in_place_stands_beside_ours(browser, data, tmp_path):
    found = json.loads(json.dumps(data))
    found["entries"][0]["times"] |= {"in_place_ns": 1500, "torch_in_place_ns": 9500}
    found["entries"][1]["times"] |= {"in_place_ns": 1, "torch_in_place_ns": None}
    (tmp_path / "page.html").write_text(render(found))
    page = Opened(browser, (tmp_path / "page.html").as_uri()).page
    assert page.locator(".entry").first.locator(".figure").all_inner_texts()[2:] == [
        "1.50 µs\nours, in place", "9.50 µs\ntorch's, in place",
    ]  # fmt: skip
    assert page.locator(".bars .value").all_inner_texts()[:2] == ["1.50 µs", "9.50 µs"]
    page.close()


def test_a_page_without_times_has_no_empty_columns_for_them(browser, tmp_path):
    page = Opened(browser, recompiled().to_html(tmp_path / "page.html").as_uri()).page
    assert page.locator(".entry").first.locator(".figure").count() == 2
    page.close()


def test_what_there_is_nothing_to_say_of_has_no_section(browser, tmp_path):
    found = explained(lambda x: x + 1, once, once)
    page = Opened(browser, found.to_html(tmp_path / "page.html").as_uri()).page
    shown = ["Cache entries", "What a check costs", "Where the guards are", "Guards"]
    assert page.locator("main h2:visible").all_inner_texts() == shown
    assert page.locator("nav a:visible").all_inner_texts() == ["Entries", "Cost", "Map", "Guards"]
    page.close()


def test_graph_breaks_and_the_limit_are_on_the_page(browser, tmp_path):
    def breaks(x: torch.Tensor, factor: int = 2) -> torch.Tensor:
        x = x * factor
        torch._dynamo.graph_break()
        return x + 1

    with torch._dynamo.config.patch(recompile_limit=2):
        calls = [lambda run, factor=factor: run(torch.ones(2), factor) for factor in range(3)]
        found = explained(breaks, *calls)
    page = Opened(browser, found.to_html(tmp_path / "page.html").as_uri()).page
    limit, broken = page.locator(".breaks > li").all_inner_texts()
    assert "is compiled no more, and runs uncompiled where no entry fits" in limit
    line = breaks.__code__.co_firstlineno + 2
    assert f"breaks 2 entries: the graph ends at {place(__file__, line)} in breaks" in broken
    page.locator(".breaks summary").click()
    assert "Remove the `torch._dynamo.graph_break()` call" in page.inner_text(".breaks")
    page.close()


def test_a_page_of_what_torch_did_not_compile_says_why(browser, tmp_path):
    def breaks(x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            torch._dynamo.graph_break()
        return x

    page = browser.new_page()
    page.goto(explained(breaks, once).to_html(tmp_path / "page.html").as_uri())
    assert "graph break in a for/while loop" in page.inner_text("main")
    page.close()


def test_entries_stand_side_by_side_with_what_is_not_in_all_of_them(opened):
    columns = opened.page.locator("#compare .columns > div").all_inner_texts()
    assert ["is True" in columns[0], "is False" in columns[1]] == [True, True]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_scheme_of_the_system_and_the_button_overrides_it(browser, address, scheme):
    page = Opened(browser, address, color_scheme=scheme).page
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(247, 247, 245)", "rgb(21, 24, 27)"
    assert page.evaluate(ground) == {"light": light, "dark": dark}[scheme]
    page.click("#theme")
    assert (page.inner_text("#theme"), page.evaluate(ground)) == ("Theme: light", light)
    page.click("#theme")
    assert (page.inner_text("#theme"), page.evaluate(ground)) == ("Theme: dark", dark)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(browser, address, scheme):
    """WCAG AA asks for 4.5 to 1."""
    page = Opened(browser, address, color_scheme=scheme).page
    ratios = page.evaluate(
        """() => {
          const shade = (text) => {
            const of = text.match(/[\\d.]+/g).slice(0, 3).map(Number).map((c) => c / 255);
            const [r, g, b] = of.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = (e) => {
            const found = getComputedStyle(e).backgroundColor;
            return /rgba\\(.*, 0\\)/.test(found) && e.parentElement ? ground(e.parentElement) : found;
          };
          const names = ["h1", "#about", "nav a", "#crumbs b", ".row .text", ".row .under", ".figure span", "th"];
          return names.map((name) => {
            const e = document.querySelector(name);
            const [a, b] = [shade(getComputedStyle(e).color), shade(ground(e))].sort((x, y) => y - x);
            return [name, (a + 0.05) / (b + 0.05)];
          });
        }"""
    )
    assert [name for name, ratio in ratios if ratio < 4.5] == []
    page.close()


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, address):
    found = Opened(browser, address, viewport={"width": 360, "height": 740})
    page = found.page
    page.locator(".row summary").first.click()
    page.wait_for_selector(".row[open] .body")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    # What is clipped does not make the document wider.
    all_of = "[...document.querySelectorAll('.entry, .entry *, .bars, .row .body, .row .body *')]"
    wide = page.evaluate(
        f"{all_of}.filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map((e) => e.outerHTML)"
    )
    assert wide == []
    page.close()


def test_a_page_without_entries_says_what_to_do(browser, tmp_path):
    page = browser.new_page()
    page.goto(unified_guards.Report("f", ()).to_html(tmp_path / "empty.html").as_uri())
    assert "call unified_guards.install()" in page.inner_text("main")
    page.close()


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a Qwen3 with 36 layers."""
    pytest.importorskip("transformers", reason="Qwen3 is transformers'")
    from benchmarks.workloads import qwen3 as model_of
    from benchmarks.workloads import tokens

    model, ids = model_of(), tokens(8)
    call: Callable[[Any], Any] = lambda compiled: compiled(input_ids=ids, use_cache=False)  # noqa: E731
    found = explained(model, call, call, call)
    return found.to_html(tmp_path_factory.mktemp("qwen3") / "guards.html")


@pytest.mark.slow
def test_the_page_of_a_large_model_is_under_two_megabytes(qwen3):
    assert 100_000 < qwen3.stat().st_size < 2_000_000


@pytest.mark.slow
def test_of_thousands_of_guards_only_those_that_are_looked_at_are_drawn(browser, qwen3):
    found = Opened(browser, qwen3.as_uri())
    page = found.page
    assert page.locator(".row").count() < 400
    assert any("layers[35].self_attn.q_proj.weight" in text for text in found.search("layers[35] q_proj weight"))
    assert found.complaints == []
    page.close()
