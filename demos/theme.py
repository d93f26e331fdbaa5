"""The look of the tabs: system fonts and the house's colours for Gradio's theme, and what goes into the head."""

from __future__ import annotations

import gradio as gr

FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif"]
MONO = ["ui-monospace", "Menlo", "Consolas", "Liberation Mono", "monospace"]

HEAD = """<link rel="icon" href="/atelier/viewers/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/atelier/css/tokens.css">
<link rel="stylesheet" href="/atelier/css/tabs.css">
<script type="module" src="/atelier/viewers/job.js"></script>
<script type="module" src="/atelier/viewers/list.js"></script>
<script type="module" src="/atelier/viewers/account.js"></script>
<script type="module" src="/atelier/viewers/files.js"></script>
"""


def theme() -> gr.themes.Base:
    """Light and dark with the colours of assets/css/tokens.css."""
    made = gr.themes.Base(
        primary_hue="teal", neutral_hue="stone", font=FONT, font_mono=MONO, radius_size="md", text_size="md"
    )
    both = {
        "body_background_fill": ("#faf9f6", "#14171a"),
        "body_text_color": ("#1c2024", "#e8e6e1"),
        "body_text_color_subdued": ("#5a6168", "#a3a9ae"),
        "block_background_fill": ("#ffffff", "#1c2125"),
        "block_border_color": ("#dcd8ce", "#343b41"),
        "block_label_text_color": ("#1c2024", "#e8e6e1"),
        "block_title_text_color": ("#1c2024", "#e8e6e1"),
        "block_info_text_color": ("#5a6168", "#a3a9ae"),
        "border_color_primary": ("#dcd8ce", "#343b41"),
        "input_background_fill": ("#faf9f6", "#14171a"),
        "input_border_color": ("#c4bfb2", "#454d54"),
        "input_placeholder_color": ("#6b7177", "#8d949a"),
        "background_fill_primary": ("#ffffff", "#1c2125"),
        "background_fill_secondary": ("#efede7", "#0e1113"),
        "button_primary_background_fill": ("#1f6f6b", "#6cc3bd"),
        "button_primary_background_fill_hover": ("#185a57", "#8bd3ce"),
        "button_primary_text_color": ("#ffffff", "#0c1a19"),
        "button_secondary_background_fill": ("#ffffff", "#1c2125"),
        "button_secondary_border_color": ("#dcd8ce", "#343b41"),
        "checkbox_label_background_fill": ("#faf9f6", "#14171a"),
        "checkbox_background_color_selected": ("#1f6f6b", "#2f8f89"),
        "slider_color": ("#1f6f6b", "#6cc3bd"),
        "link_text_color": ("#1f6f6b", "#6cc3bd"),
    }
    plain = {name: light for name, (light, _) in both.items()}
    dark = {f"{name}_dark": value for name, (_, value) in both.items()}
    return made.set(**plain, **dark, block_border_width="1px", block_shadow="none", block_title_text_weight="600")
