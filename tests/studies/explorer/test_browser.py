"""All views in a real headless Chromium: what a user clicks, and what the page then shows."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from studies.explorer.looking import prompt_of
from studies.explorer.pair_examples import read_pair_examples
from tests.rewardmodels.small import reward_model
from tests.studies.explorer.pages import CHROMIUM, SAMPLES, Tab, sideways
from tests.studies.explorer.run_factory import make_image, verdict_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
expect.set_options(timeout=20_000)


def _maps(page: Page, view: str) -> list[str]:
    return [str(image.get_attribute("src")) for image in page.locator(f"#{view}-maps .sc-map").all()]


def _step_layer(page: Page, view: str, key: str = "ArrowLeft") -> None:
    """One key press on the layer slider, and wait until the first overlay is another."""
    first = page.locator(f"#{view}-maps .sc-map").first
    before = str(first.get_attribute("src"))
    page.locator(f"#{view}-layer input[type=range]").press(key)
    expect(first).not_to_have_attribute("src", before)


def test_look_example_slider_rows_and_blank(tab: Tab) -> None:
    page = tab.page
    page.locator("#look-examples button").first.click()
    expect(page.locator("#look-maps .sc-map")).to_have_count(2)
    expect(page.locator("#look-answer .sc-said")).not_to_be_empty()
    expect(page.locator("#look-answer")).to_contain_text("Focus")
    expect(page.locator("#look-maps .sc-focused")).to_have_count(1)
    expect(page.locator("#look-question textarea")).to_have_value("Which image shows the red ball?")
    expect(page.locator("#look-factors .main-svg").first).to_be_visible()
    expect(page.locator("#look-pairwise .main-svg").first).to_be_visible()
    last = _maps(page, "look")
    expect(page.locator("#look-maps .sc-legend")).to_contain_text("Layer 2.")
    _step_layer(page, "look")
    expect(page.locator("#look-maps .sc-legend")).to_contain_text("Layer 1.")
    _step_layer(page, "look", "ArrowRight")
    assert _maps(page, "look") == last, "the trace is kept: going back shows the same maps"
    page.locator("#look-rows input").click()
    page.get_by_role("option", name="Predicting rows").click()
    expect(page.locator("#look-maps .sc-map").first).not_to_have_attribute("src", last[0])
    tab.shot("look")
    page.locator("#look-which").get_by_label("Image 2").check()
    page.locator("#look-blank").click()
    expect(page.locator("#look-change")).to_contain_text("With image 2 blank")
    expect(page.locator("#look-change")).to_contain_text("nats")
    expect(page.locator("#look-before .main-svg").first).to_be_visible()
    expect(page.locator("#look-after .main-svg").first).to_be_visible()
    tab.shot("look-blank")
    assert sideways(page) <= 0


def test_look_says_what_is_wrong(tab: Tab, tmp_path: Path) -> None:
    page = tab.page
    notice = page.locator("#look-status .sc-notice")
    page.locator("#look-ask").click()
    expect(notice).to_contain_text("There is no image")
    good, broken = tmp_path / "good.png", tmp_path / "broken.png"
    make_image(0).save(good)
    broken.write_bytes(good.read_bytes()[:80])
    page.locator("#look-images input[type=file]").first.set_input_files([good, broken])
    expect(page.locator("#look-images img")).to_have_count(2)
    page.locator("#look-ask").click()
    expect(notice).to_contain_text("Image 2 cannot be used")
    page.locator("#look-examples button").first.click()
    expect(page.locator("#look-maps .sc-card")).to_have_count(2)
    expect(notice).to_have_count(0)
    page.locator("#look-question textarea").fill("  ")
    page.locator("#look-ask").click()
    expect(notice).to_contain_text("The question is empty")
    expect(page.locator("#look-maps .sc-card")).to_have_count(0)
    tab.shot("look-error")
    tab.errors.clear()  # Chromium reports the broken picture too


def test_look_takes_images_of_ones_own(tab: Tab, tmp_path: Path) -> None:
    page = tab.page
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for index, path in enumerate(files):
        make_image(index).resize((90, 60)).save(path)
    page.locator("#look-images input[type=file]").first.set_input_files(files)
    expect(page.locator("#look-images img")).to_have_count(3)
    page.locator("#look-question textarea").fill("How many digits?")
    page.locator("#look-question textarea").press("Enter")
    expect(page.locator("#look-maps .sc-map")).to_have_count(3)


def test_look_refuses_too_many_images(tab: Tab, tmp_path: Path) -> None:
    page = tab.page
    files = [tmp_path / f"{index}.png" for index in range(17)]
    for index, path in enumerate(files):
        make_image(index).save(path)
    page.locator("#look-images input[type=file]").first.set_input_files(files)
    expect(page.locator("#look-images img")).to_have_count(17)
    page.locator("#look-question textarea").fill("Which one?")
    page.locator("#look-ask").click()
    expect(page.locator("#look-status .sc-notice")).to_contain_text("17 images are too many: give at most 16")


def _open_reward(page: Page) -> None:
    page.get_by_role("tab", name="Reward").click()
    expect(page.locator("#reward-examples button")).to_have_count(6)


def _cells(page: Page, view: str) -> list[str]:
    row = page.locator("#reward-views tbody tr", has_text=view)
    return [str(cell.text_content()) for cell in row.locator("td").all()][1:]


def test_reward_example_views_maps_and_padding(tab: Tab) -> None:
    page = tab.page
    _open_reward(page)
    page.locator("#reward-examples button").nth(2).click()
    expect(page.locator("#reward-verdict .sc-said")).to_contain_text("is preferred")
    expect(page.locator("#reward-views tbody tr")).to_have_count(4)
    example = read_pair_examples().pairs[2]
    assert page.locator("#reward-a textarea").input_value() == example.answers[0]
    images = [ref.open() for ref in example.asked.images]
    own = reward_model("llava").compare(prompt_of(example.asked.question, len(images)), *example.answers, images)
    winner = "A" if own.margin > 0 else "B"
    assert _cells(page, "As it is") == [
        f"{own.first:.3f}", f"{own.second:.3f}", f"{own.margin:+.3f}", f"{own.probability:.1%}", winner
    ]  # fmt: skip
    assert len({tuple(_cells(page, view)) for view in ("As it is", "blank", "Other pictures", "Text alone")}) == 4
    expect(page.locator("#reward-maps .sc-map")).to_have_count(len(images))
    expect(page.locator("#reward-maps .sc-legend")).to_contain_text("Mean over layers.")
    expect(page.locator("#reward-factors .main-svg").first).to_be_visible()
    _step_layer(page, "reward")
    expect(page.locator("#reward-maps .sc-legend")).to_contain_text("Layer 2.")
    before = _maps(page, "reward")
    page.locator("#reward-rows input").click()
    page.get_by_role("option", name="Scoring token of B").click()
    expect(page.locator("#reward-maps .sc-map").first).not_to_have_attribute("src", before[0])
    page.locator("#reward-pad").click()
    expect(page.locator("#reward-said")).to_contain_text("Preference turned")
    expect(page.locator("#reward-said")).to_contain_text(f"{own.second:.3f} →")
    expect(page.locator("#reward-chart .main-svg").first).to_be_visible()
    tab.shot("reward")
    assert sideways(page) <= 0
    page.locator("#reward-kind input").click()
    page.get_by_role("option", name="Hedges").click()
    page.locator("#reward-pad").click()
    expect(page.locator("#reward-said")).to_contain_text("though I may be mistaken")


def test_reward_says_what_is_wrong_and_escapes_answers(tab: Tab, tmp_path: Path) -> None:
    page = tab.page
    _open_reward(page)
    notice, go = page.locator("#reward-status .sc-notice"), page.locator("#reward-go")
    go.click()
    expect(notice).to_contain_text("There is no image")
    good, broken = tmp_path / "good.png", tmp_path / "broken.png"
    make_image(0).save(good)
    broken.write_bytes(good.read_bytes()[:80])
    page.locator("#reward-images input[type=file]").first.set_input_files([good])
    expect(page.locator("#reward-images img")).to_have_count(1)
    page.locator("#reward-question textarea").fill("What is in image 1?")
    page.locator("#reward-a textarea").fill("a cat")
    go.click()
    expect(notice).to_contain_text("Answer B is empty")
    page.locator("#reward-b textarea").fill(" a  cat ")
    go.click()
    expect(notice).to_contain_text("The two answers say the same")
    expect(page.locator("#reward-views tbody tr")).to_have_count(0)
    hostile = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>"
    page.locator("#reward-b textarea").fill(hostile)
    go.click()
    expect(page.locator("#reward-verdict .sc-said")).to_contain_text("is preferred")
    expect(notice).to_have_count(0)
    page.locator("#reward-pad").click()
    expect(page.locator("#reward-said")).to_contain_text(hostile)
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None
    page.reload()
    _open_reward(page)
    page.locator("#reward-images input[type=file]").first.set_input_files([good, broken])
    expect(page.locator("#reward-images img")).to_have_count(2)
    page.locator("#reward-question textarea").fill("Which one?")
    go.click()
    expect(notice).to_contain_text("Image 2 cannot be used")
    tab.errors.clear()  # Chromium reports the broken picture too


def _open_runs(page: Page) -> None:
    page.get_by_role("tab", name="Runs").click()
    expect(page.locator("#runs-table tbody tr")).to_have_count(12)


def _filter(page: Page, name: str, choice: str) -> None:
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=choice, exact=True).click()


def test_runs_filter_open_and_slide(tab: Tab) -> None:
    page = tab.page
    _open_runs(page)
    expect(page.locator("#runs-where")).to_have_text(f"1–12 of {SAMPLES} samples")
    page.locator("#runs-forward").click()
    expect(page.locator("#runs-where")).to_have_text(f"13–24 of {SAMPLES} samples")
    _filter(page, "runs-show", "Right for the wrong reason")
    lucky = [f"sample-{index:04d}" for index in range(SAMPLES) if verdict_of(index, SAMPLES) == "lucky"]
    expect(page.locator("#runs-table tbody tr")).to_have_count(len(lucky))
    shown = [str(row.get_attribute("data-sample")) for row in page.locator("#runs-table tbody tr").all()]
    assert shown == lucky
    page.locator("#runs-table tbody tr").first.click()
    expect(page.locator("#runs-sample")).to_contain_text("right for the wrong reason")
    expect(page.locator("#runs-maps .sc-map")).to_have_count(4)
    expect(page.locator("#runs-maps .sc-focused")).to_contain_text("Image 4")
    expect(page.locator("#runs-maps .sc-card", has_text="target")).to_contain_text("Image 3")
    expect(page.locator("#runs-factors .main-svg").first).to_be_visible()
    _step_layer(page, "runs")
    tab.shot("runs")
    assert sideways(page) <= 0
    _filter(page, "runs-task", "needle")
    _filter(page, "runs-images", "3")
    expect(page.locator("#runs-table tbody tr")).to_have_count(2)
    page.get_by_role("tab", name="Summary").click()
    expect(page.locator("#runs-summary")).to_contain_text("answer accuracy")
    expect(page.locator("#runs-summary .sc-figures img")).to_be_visible()
    tab.shot("runs-summary")


def test_runs_by_keyboard_and_hostile_texts(tab: Tab) -> None:
    page = tab.page
    _open_runs(page)
    for place in ("13–24", "25–36", "37–40"):
        page.locator("#runs-forward").click()
        expect(page.locator("#runs-where")).to_have_text(f"{place} of {SAMPLES} samples")
    row = page.locator(f'#runs-table tr[data-sample="sample-{SAMPLES - 2:04d}"]')
    row.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#runs-sample .sc-said")).to_contain_text("<script>window.hacked=1</script>")
    page.locator(f'#runs-table tr[data-sample="sample-{SAMPLES - 1:04d}"]').click()
    expect(page.locator("#runs-sample")).to_contain_text("image 2 is truncated")
    assert page.evaluate("window.hacked") is None
