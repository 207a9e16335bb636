"""The words, the table and the figure of the Reward view. Pure: records in, HTML out; every text is escaped here."""

from html import escape
from typing import Any

import numpy as np
from PIL import Image

from studies.explorer.judging import ALONE, AS_IS, BLANK, SHUFFLED, Judged, Padded, ViewScores
from studies.explorer.shown import data_address
from studies.explorer.style import facts

_MEANING = {
    AS_IS: "the images that you gave",
    BLANK: "white images of the same size",
    SHUFFLED: "pictures drawn from other pairs",
    ALONE: "no image, and no tokens for one",
}
_THUMBNAIL, _MOST_THUMBNAILS = 40, 4


def verdict_card(judged: Judged) -> str:
    """Which answer is preferred, by how much, and whether that hangs on the images."""
    plain = judged.plain
    pairs = {
        "Score of A": f"{plain.first:z.3f}",
        "Score of B": f"{plain.second:z.3f}",
        "Margin, A − B": f"{plain.margin:+.3f}",
        "P(A preferred)": f"{plain.probability:.1%}",
    }
    said = f"{_winner(plain.margin)} is preferred" if plain.margin else "Neither is preferred"
    return f'<div class="sc-answer"><div class="sc-said">{said}</div>{facts(pairs)}{_sentence(judged)}</div>'


def views_table(judged: Judged) -> str:
    """Both scores and their margin under every view of the images."""
    names = ("Images", "", "Score of A", "Score of B", "Margin", "P(A)", "Preferred")
    numbers = names[2:6]
    head = "".join(f'<th{_right(name in numbers)} scope="col">{name}</th>' for name in names)
    rows = "".join(_row(each) for each in judged.views)
    return f'<table class="sc-table sc-views"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def padding_words(padded: Padded) -> str:
    """What making one answer longer did to its score."""
    name, other = ("A", "B") if padded.side == 0 else ("B", "A")
    change = padded.scores[-1] - padded.scores[0]
    flip = f"by none of {len(padded.texts) - 1} steps"
    if padded.flips:
        more = padded.tokens[padded.flips[0]] - padded.tokens[0]
        flip = f"by {len(padded.flips)} of {len(padded.texts) - 1} steps, first with {more} tokens more"
    pairs = {
        f"Score of {name}": f"{padded.scores[0]:z.3f} → {padded.scores[-1]:z.3f} ({change:+z.3f})",
        "Tokens": f"{padded.tokens[0]} → {padded.tokens[-1]}",
        f"Score of {other}, as it is": f"{padded.other:z.3f}",
        "Preference turned": flip,
    }
    longest = f'<p class="sc-note">Longest {name}: {escape(padded.texts[-1])}</p>'
    return facts(pairs) + longest


def padding_chart(padded: Padded) -> Any:
    """Score against length: the answer that grows, the same with blank images, and the other answer as it is."""
    from viz.screen_rewards import score_against_length

    name, other = ("A", "B") if padded.side == 0 else ("B", "A")
    series = {f"{name}, growing": padded.scores, f"{other}, as it is": (padded.other,) * len(padded.texts)}
    if padded.blank is not None:
        series[f"{name}, growing, images blank"] = padded.blank
    figure = score_against_length(padded.tokens, np.array(list(series.values())), list(series))
    return figure.update_layout(
        height=330,
        autosize=True,
        margin={"l": 8, "r": 12, "t": 34, "b": 8},
        font={"family": "system-ui, DejaVu Sans, sans-serif", "size": 12},
    ).update_yaxes(automargin=True).update_xaxes(automargin=True)  # fmt: skip


def _sentence(judged: Judged) -> str:
    """The one line that the table comes to, where there is a view without the images."""
    asked = [each for each in judged.views[1:] if each.comparison is not None]
    if not asked:
        return ""
    same = [each.view.lower() for each in asked if _sign(each) == _sign(judged.views[0])]
    other = [each.view.lower() for each in asked if _sign(each) != _sign(judged.views[0])]
    parts = [f"The same answer is preferred with {_listed(same)}."] if same else []
    parts += [f"The preference is another with {_listed(other)}."] if other else []
    return f'<p class="sc-note">{" ".join(parts)}</p>'


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sign(each: ViewScores) -> float:
    return 0.0 if each.comparison is None else float(np.sign(each.comparison.margin))


def _winner(margin: float) -> str:
    return "A" if margin > 0 else "B" if margin < 0 else "neither"


def _row(each: ViewScores) -> str:
    name = f'<th scope="row" title="{_MEANING[each.view]}">{each.view}</th><td>{_thumbnails(each)}</td>'
    found = each.comparison
    if found is None:
        return f'<tr>{name}<td colspan="5" class="sc-why">not asked: {escape(each.why_not)}</td></tr>'
    numbers = (f"{found.first:z.3f}", f"{found.second:z.3f}", f"{found.margin:+.3f}", f"{found.probability:.1%}")
    cells = "".join(f"<td{_right(True)}>{number}</td>" for number in numbers)
    return f'<tr>{name}{cells}<td class="sc-verdict">{_winner(found.margin)}</td></tr>'


def _thumbnails(each: ViewScores) -> str:
    shown = "".join(
        f'<img alt="" src="{data_address(_small(image), "WEBP")}">' for image in each.pictures[:_MOST_THUMBNAILS]
    )
    return f'<div class="sc-thumbs">{shown}</div>' if shown else ""


def _small(image: Image.Image) -> Image.Image:
    copy = image.convert("RGB")
    copy.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return copy


def _right(number: bool) -> str:
    return ' class="sc-num"' if number else ""
