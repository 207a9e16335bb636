"""The Inside view in a real headless Chromium, over a hybrid model and a routing run with hostile names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.probes import hybrid_models
from tests.studies.explorer.pages import CHROMIUM, Tab, free_port, save_benchmark, sideways
from tests.studies.explorer.routing_factory import make_routing_run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from studies.explorer.app import build, serve

    home: Path = tmp_path_factory.mktemp("inside")
    make_routing_run(home / "runs" / "mixture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(home / "gradio"))
        blocks = build(hybrid_models.hooked("nemotron"), home / "runs", save_benchmark(home / "benchmark", 2))
        yield serve(blocks, free_port(), block=False).rstrip("/")
        blocks.close(verbose=False)


@pytest.fixture
def inside(browser: Browser, address: str) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = Tab(context.new_page(), address)
    opened.page.get_by_role("tab", name="Inside").click()
    yield opened
    assert opened.outside == [] and opened.errors == []
    assert opened.page.evaluate("window.hacked") is None
    context.close()


def test_a_question_shows_every_kind_of_layer(inside: Tab) -> None:
    page = inside.page
    expect(page.locator("#inside-strip li")).to_have_count(6)
    expect(page.locator("#inside-strip .sc-state_space")).to_have_count(2)
    expect(page.locator("#inside-strip li").nth(3)).to_contain_text("attention")
    page.locator("#inside-examples button").first.click()
    expect(page.locator("#inside-answer .sc-said")).not_to_be_empty(timeout=60_000)
    for name in ("softmax", "hidden-0", "experts"):
        expect(page.locator(f"#inside-{name} .main-svg").first).to_be_visible()
    expect(page.locator("#inside-hidden-0")).to_contain_text("Mamba-2: size, over the row's sum")
    page.locator("#inside-form input").click()
    page.get_by_role("option", name="Signed weight").click()
    expect(page.locator("#inside-hidden-0")).to_contain_text("Mamba-2: signed weight")
    inside.shot("inside-question")
    assert sideways(page) <= 0
    page.locator("#inside-question textarea").fill("   ")
    page.locator("#inside-ask").click()
    expect(page.locator("#inside-answer .sc-notice")).to_contain_text("The question is empty")
    expect(page.locator("#inside-softmax .main-svg")).to_have_count(0)


def test_a_routing_run_is_opened_without_a_model_and_escaped(inside: Tab) -> None:
    page = inside.page
    page.get_by_role("tab", name="A routing run").click()
    expect(page.locator("#inside-run input")).to_have_value("mixture")
    expect(page.locator("#inside-run-card")).to_contain_text("<script>window.hacked=1</script>")
    expect(page.locator("#inside-run-card tbody tr")).to_have_count(3)
    for place in range(6):
        expect(page.locator(f"#inside-figure-{place} .main-svg").first).to_be_visible()
    expect(page.locator("#inside-caption-2")).to_contain_text("goes to both of two experts")
    expect(page.locator("#inside-caption-3")).to_contain_text("in common with the model")
    inside.shot("inside-run")
    assert sideways(page) <= 0
