"""The page's look: a theme from fonts that the machine has, and the style sheet of our own pieces of HTML."""

from html import escape

import gradio as gr

CSS = """
.gradio-container { max-width: 1560px !important; margin: 0 auto !important; }
.gradio-container > main.contain, .gradio-container .main { padding: 6px 18px 24px !important; }
#title { padding: 2px 0 0 !important; }
#title h1 { font-size: 19px; font-weight: 700; margin: 0; display: inline; }
#title span { color: var(--body-text-color-subdued); margin-left: 10px; font-size: 13.5px; }
.html-container { padding: 0 !important; }
.block.hide-container:has(> .html-container > div:empty) { display: none; }
.tabitem { padding: 8px 0 0 !important; }
.sc-controls .block { padding: 6px 10px !important; }
.sc-controls { gap: 6px !important; }
.sc-ask { align-items: center !important; }
.sc-pager { align-items: center !important; }
#runs-where { text-align: center; }
.sc-notice { margin: 0; padding: 8px 12px; border-radius: 8px; border-left: 4px solid #b42318; background: #fef3f2;
  color: #7a1a12; font-size: 14px; overflow-wrap: anywhere; }
.sc-note { margin: 0; color: var(--body-text-color-subdued); font-size: 13px; overflow-wrap: anywhere; }
.sc-empty { border: 1px dashed var(--border-color-primary); border-radius: 10px; padding: 36px 16px;
  text-align: center; color: var(--body-text-color-subdued); }
.sc-answer { display: flex; flex-wrap: wrap; gap: 4px 26px; align-items: baseline; }
.sc-answer .sc-said { font-size: 20px; font-weight: 650; white-space: pre-wrap; overflow-wrap: anywhere;
  flex-basis: 100%; max-height: 8.5em; overflow-y: auto; }
.sc-answer dl, .sc-facts { display: flex; flex-wrap: wrap; gap: 2px 22px; margin: 0; font-size: 13.5px; }
.sc-facts div { display: flex; gap: 6px; min-width: 0; }
.sc-facts dt { color: var(--body-text-color-subdued); }
.sc-facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; white-space: pre-wrap; }
.sc-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 10px; }
.sc-card { margin: 0; padding: 6px; border: 2px solid var(--border-color-primary); border-radius: 10px;
  background: var(--background-fill-primary); outline-offset: 2px; }
.sc-card.sc-focused { border-color: #c2410c; }
.sc-picture { position: relative; width: 100%; max-height: 200px; margin: 0 auto; }
.sc-picture img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; border-radius: 5px;
  margin: 0; image-rendering: auto; }
.sc-region { position: absolute; border: 2px solid #00e5ff; outline: 1px solid #000; box-sizing: border-box; }
.sc-card:hover .sc-map, .sc-card:focus .sc-map { opacity: 0; }
.sc-card figcaption { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 6px; margin-top: 5px;
  font-size: 12.5px; min-height: 20px; }
.sc-mark { font-size: 11px; font-weight: 650; padding: 0 6px; border-radius: 9px; line-height: 17px; }
.sc-focus { background: #c2410c; color: #fff; }
.sc-target { background: #047857; color: #fff; }
.sc-missing { background: #667085; color: #fff; }
.sc-measure { flex: 0 0 100%; display: flex; align-items: center; gap: 6px; }
.sc-share { flex: 1 1 24px; min-width: 24px; height: 6px; border-radius: 3px; background: var(--border-color-primary); }
.sc-share i { display: block; height: 6px; border-radius: 3px; background: #c2410c; }
.sc-number { font-variant-numeric: tabular-nums; color: var(--body-text-color-subdued); }
.sc-legend { margin: 6px 0 0; font-size: 12.5px; color: var(--body-text-color-subdued); }
.sc-ramp { display: inline-block; width: 110px; height: 9px; border-radius: 2px; vertical-align: -1px; }
.sc-example { display: flex; gap: 8px; align-items: center; text-align: left; max-width: 100%; }
.sc-example img { height: 26px; width: 26px; object-fit: cover; border-radius: 4px; margin: 0; }
.sc-example span { font-size: 13px; line-height: 1.25; }
.sc-thumbs { display: flex; gap: 2px; flex: none; }
.sc-table { width: 100%; border-collapse: collapse; font-size: 12.5px; table-layout: fixed; margin: 0; }
.sc-table th { text-align: left; font-weight: 600; color: var(--body-text-color-subdued); padding: 5px 4px;
  border-bottom: 1px solid var(--border-color-primary); white-space: nowrap; }
.sc-table td { padding: 5px 4px; border-bottom: 1px solid var(--border-color-primary); white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; }
.sc-table.sc-pick tbody tr { cursor: pointer; }
.sc-table.sc-pick tbody tr:hover { background: var(--background-fill-secondary); }
.sc-table.sc-pick tbody tr:focus { outline: 2px solid var(--color-accent); outline-offset: -2px; }
.sc-table tr.sc-open { background: var(--color-accent-soft) !important; }
.sc-num { text-align: right !important; font-variant-numeric: tabular-nums; padding-right: 10px !important; }
.sc-views { margin-top: 8px; }
.sc-views td, .sc-views tbody th { overflow: visible; }
.sc-views tbody th { color: inherit; }
.sc-views th:nth-child(1) { width: 118px; } .sc-views th:nth-child(2) { width: 150px; }
.sc-views img { height: 26px; width: 26px; object-fit: cover; border-radius: 4px; margin: 0; }
.sc-views .sc-why { white-space: normal; color: var(--body-text-color-subdued); }
.sc-verdict { font-weight: 600; }
.sc-right { color: #047857; } .sc-wrong { color: #b42318; } .sc-lucky { color: #b45309; }
.sc-figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(440px, 1fr)); gap: 14px;
  margin-top: 14px; }
.sc-figures figure { margin: 0; border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 8px;
  background: #fff; }
.sc-figures img { width: 100%; margin: 0; }
.sc-figures figcaption { font-size: 13px; color: #475467; }
.sc-scroll { max-height: 460px; overflow: auto; margin-top: 10px; }
.sc-scroll summary { cursor: pointer; padding: 8px 6px; font-size: 13.5px; font-weight: 600; }
.sc-strip { display: flex; flex-wrap: wrap; gap: 4px; margin: 2px 0 4px; padding: 0; list-style: none; }
.sc-strip li { display: flex; align-items: center; gap: 4px; padding: 2px 5px; border-radius: 6px; font-size: 12px;
  border: 1px solid var(--border-color-primary); margin: 0; }
.sc-strip b { font-variant-numeric: tabular-nums; color: var(--body-text-color-subdued); font-weight: 600; }
.sc-kind { font-style: normal; color: #fff; padding: 0 5px; border-radius: 4px; line-height: 16px; font-size: 11px; }
.sc-attention { background: #0b5c8a; } .sc-state_space { background: #a34700; }
.sc-linear_attention { background: #8a3a68; }
.sc-convolution { background: #6b5b00; } .sc-experts { background: #00664b; } .sc-mlp { background: #5b6575; }
.dark .sc-notice { background: #3b1512; color: #fecdca; }
.dark .sc-right { color: #34d399; } .dark .sc-wrong { color: #f97066; } .dark .sc-lucky { color: #fbbf24; }
"""


def theme() -> gr.themes.Base:
    """A quiet theme; its fonts are the machine's, so that none is fetched."""
    return gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "Segoe UI", "DejaVu Sans", "sans-serif"],
        font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"],
        spacing_size="sm",
        text_size="md",
    ).set(layout_gap="8px", form_gap_width="1px", button_large_padding="8px 14px", button_large_text_size="15px")


def notice(message: str) -> str:
    """One line of error text, announced by screen readers; the message is escaped.

    >>> notice("<b>")
    '<p class="sc-notice" role="alert">&lt;b&gt;</p>'
    """
    line = " ".join(message.split())
    return f'<p class="sc-notice" role="alert">{escape(line)}</p>'


def note(message: str) -> str:
    """One quiet line; the message is escaped."""
    return f'<p class="sc-note" role="status">{escape(message)}</p>'


def facts(pairs: dict[str, str]) -> str:
    """A list of names and values, escaped."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs.items())
    return f'<dl class="sc-facts">{items}</dl>'
