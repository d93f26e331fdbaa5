"""What was measured of the pocket text-to-image model, its judge and the pocket CLIP, written into their cards.

    python -m benchmarks.text2image_card

Reads the rows of `benchmarks.text2image_quality` beside the weights (quality.jsonl, and search.jsonl with those that
settings were chosen by) and the examinations, and replaces the part "Measured" of each card, so that no figure is
copied by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import read_rows
from benchmarks.text2image_quality import AUTOENCODER, GOALS, mean, share
from engines.text2image.presets import ASSETS
from pocket.broken import UNSEEN_WAYS
from pocket.wording import VIEWS

ROWS, SEARCH = "quality.jsonl", "search.jsonl"
HEADING = "## Measured\n"
UNET = "unet/diffusion_pytorch_model.safetensors"
JUDGED = {  # what the judge says of a picture -> how the table calls it
    "hue": "colour right, whole toy or not",
    "colour": "a whole toy of the right colour",
    "kind": "kind right",
    "view": "side right, of kinds whose sides can be told",
    "number": "number right",
}
GROUPS = ("seen", "withheld")
Rows = Sequence[dict[str, Any]]


def written(card: str, text: str) -> str:
    """The card with this as its part "Measured"; as its last part if it had none."""
    before, heading, after = card.partition(HEADING)
    mark, rest = after.partition("\n## ")[1:] if heading else ("", "")
    return f"{before.rstrip()}\n\n{HEADING}\n{text.strip()}\n{mark}{rest}"


def quality(rows: Rows, tried: Rows, examination: dict[str, Any], weights: Path) -> str:
    """The table of the model beside the world, and how it came about; by `tried` the settings were chosen."""
    seen, shown = _group(rows, "seen", True), _group(rows, "seen", False)
    held, shown_held = _group(rows, "withheld", True), _group(rows, "withheld", False)
    psnr = next(row["psnr"] for row in rows if row["group"] == AUTOENCODER)
    lines = [("", "the model", "the world itself", "asked for")]
    for name, said in JUDGED.items():
        lines.append((said, _right(seen, name), _right(shown, name), f"{GOALS[name]:.0%}" if name in GOALS else ""))
    pairs = f"kind and colour right, {len(held)} pictures of pairs withheld from training"
    lines += [
        (pairs, _right(held, "pair"), _right(shown_held, "pair"), f"{GOALS['pair']:.0%}"),
        ("CLIP score", _mean(seen, "clip"), _mean(shown, "clip"), ""),
        ("nearest training picture, grey levels", _mean(seen, "distance"), _mean(shown, "distance"), ""),
        ("the smallest of those distances", _least(seen), _least(shown), ""),
        (f"autoencoder, {len(psnr)} unseen pictures, dB", mean(np.array(psnr)), "", f"{GOALS['psnr']}"),
    ]
    first, last = seen[0]["seed"], seen[-1]["seed"]
    how = _label(seen[0])
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    return _card(
        f"{len(seen)} prompts, one a seed ({first} to {last}), {how}; 95 % intervals. Beside it the judge's word on "
        "what the world itself shows for the same prompts: what it misses there says "
        f"nothing about the model. {'The settings were chosen below. ' if tried else 'No settings were searched. '}"
        f"Every row is in `{ROWS}`, made by "
        f"`python -m benchmarks.text2image_quality --seeds {first}:{last + 1} --folder pictures "
        f"--out {ROWS} --sheet sheet.png` from the U-Net with sha256 {digest}...; `sheet.png` holds the pictures of "
        "the first 64 prompts, none chosen.",
        _table(lines),
        f"{_trust(examination)} Sides are judged where all four are told on renders: "
        f"{', '.join(examination['sided_kinds'])}. People are not judged.",
        *(searched(tried) if tried else ()),
    )


def searched(rows: Rows) -> tuple[str, str]:
    """What was found with each of the settings that were tried, and where."""
    drawn = [row for row in rows if row["settings"] is not None]
    seeds = sorted({row["seed"] for row in drawn})
    lines = [("settings", "whole and colour right", "kind right", "side right", "withheld pairs right", "CLIP score")]
    for label in dict.fromkeys(_label(row) for row in drawn):
        seen, held = ([row for row in drawn if row["group"] == group and _label(row) == label] for group in GROUPS)
        told = [_right(seen, name) for name in ("colour", "kind", "view")]
        lines.append((label, *told, _right(held, "pair"), _mean(seen, "clip")))
    return f"Tried on seeds {seeds[0]} to {seeds[-1]} (`{SEARCH}`), with the same weights:", _table(lines)


def _label(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row["settings"].items())


def judged(report: dict[str, Any]) -> str:
    """What the judge's examination found."""
    clean, worn = report["clean"], report["worn"]
    named = {
        "kind": "kind right",
        "colour": "colour right",
        "number": "number right",
        "view_of_sided": "side right, of kinds whose sides it tells",
        "whole": "taken for whole",
    }
    right = [(said, f"{clean[name]:.1%}", f"{worn[name]:.1%}") for name, said in named.items()]
    ways = [
        (way.replace("_", " ") + (" (never trained on)" if way in UNSEEN_WAYS else ""), f"{found:.1%}")
        for way, found in report["broken_noticed"].items()
    ]
    sides = [(kind, *(f"{recall:.0%}" for recall in recalls)) for kind, recalls in report["view_recall"].items()]
    return _card(
        f"On {report['pictures']} unseen renders, half of them from all four sides alike (`examination.json`). It "
        "may call a side wrong only of kinds whose four sides it tells nine times in ten: "
        f"{', '.join(report['sided_kinds'])}.",
        _table([("", "clean", "worn"), *right]),
        _table([("broken on purpose", "noticed"), *ways]),
        "Sides recognised on clean renders:",
        _table([("", *VIEWS), *sides]),
    )


def matched(report: dict[str, Any]) -> str:
    """What the examination of the pocket CLIP found."""
    among = report["among"]
    lines = [
        ("", "right"),
        (f"of {among} pictures, one that a caption is true of is found", f"{report['picture_for_caption']:.1%}"),
        (f"of {among} captions, one that is true of a picture is found", f"{report['caption_for_picture']:.1%}"),
    ]
    for name, value in report.items():
        if name.startswith("wrong_"):
            lines.append((f"a wrong {name.split('_')[1]} is noticed (chance 50 %)", f"{value:.1%}"))
    return _card(f"On {report['pictures']} unseen renders (`examination.json`):", _table(lines))


def _group(rows: Rows, group: str, drawn: bool) -> Rows:
    """What the model drew, or what the world showed, in the order of seeds."""
    found = [row for row in rows if row["group"] == group and (row["settings"] is not None) == drawn]
    return sorted(found, key=lambda row: row["seed"])


def _right(rows: Rows, name: str) -> str:
    told = [row[name] for row in rows if row[name] is not None]
    return share(told) + (f" (n = {len(told)})" if len(told) < len(rows) else "")


def _mean(rows: Rows, name: str) -> str:
    return mean(np.array([row[name] for row in rows]))


def _least(rows: Rows) -> str:
    return f"{min(row['distance'] for row in rows):.3g}"


def _trust(report: dict[str, Any]) -> str:
    clean, noticed = report["clean"], report["broken_noticed"]
    worst = min(noticed, key=noticed.__getitem__)
    hues = ", ".join(f"{way.replace('_', ' ')} ones {share:.0%}" for way, share in report["colour_of_broken"].items())
    return (
        f"The judge, on unseen renders: kind {clean['kind']:.1%}, colour {clean['colour']:.1%}, number "
        f"{clean['number']:.1%}, and {1 - clean['whole']:.1%} of them wrongly called broken; of pictures broken on "
        f"purpose it notices {noticed[worst]:.0%} ({worst.replace('_', ' ')}) to {max(noticed.values()):.0%}. "
        f"Of toys that it calls broken it still tells the colour: of {hues} on renders."
    )


def _table(lines: Iterable[tuple[str, ...]]) -> str:
    head, *rest = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *rest])


def _card(*parts: str) -> str:
    """Paragraphs, those of words wrapped."""
    return "\n\n".join(part if part.startswith("|") else textwrap.fill(part, 120) for part in parts)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=ASSETS)
    assets: Path = parser.parse_args().assets
    judge, clip = (
        json.loads((assets / name / "examination.json").read_text(encoding="utf-8"))
        for name in ("text2image_judge", "clip")
    )
    parts = {"text2image_judge": judged(judge), "clip": matched(clip)}
    for name in ("text2image", "text2image_b"):
        rows, tried = (read_rows(assets / name / file) for file in (ROWS, SEARCH))
        if rows:
            parts[name] = quality(rows, tried, judge, assets / name / UNET)
    for name, text in parts.items():
        card = assets / name / "README.md"
        card.write_text(written(card.read_text(encoding="utf-8"), text), encoding="utf-8")
        print(f"{card}: measured")


if __name__ == "__main__":
    main()
