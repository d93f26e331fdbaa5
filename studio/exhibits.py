"""What of a job's results is shown where: what stands side by side, what lies below it, and what stands for the job.

Works on the output views of studio.views alone; knows no store, no method and no HTML. The roles an engine may give
its results are explained in docs/adding-an-engine.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

View = Mapping[str, Any]  # one output, see studio.views.output_view

ORDER = ("input", "control", "baseline", "ablation", "method")  # in which results stand side by side
POSTER, PLOT, SHEET = "poster", "plot", "sheet"
BESIDES = (POSTER, PLOT, SHEET)  # roles of pictures that are not compared with the results
COVERS = ("image", "video")  # kinds that can stand for a job as they are
NUMBERS = 3  # under each result; the table below has them all


@dataclass(frozen=True)
class Exhibits:
    """The results of one job by the way they are shown; every file is offered for download besides."""

    pictures: list[View]
    clips: list[View]
    objects: list[View]
    plots: list[View]  # pictures about the results, below them
    sheets: list[View]  # all frames of a clip, or all views of an object, in one picture


def exhibits(outputs: Sequence[View]) -> Exhibits:
    """Sort out what `outputs`, in their order, are shown as."""
    images = [item for item in outputs if item["kind"] == "image"]
    return Exhibits(
        pictures=[item for item in images if item["role"] not in BESIDES],
        clips=[item for item in outputs if item["kind"] == "video"],
        objects=[item for item in outputs if item["kind"] == "mesh"],
        plots=[item for item in images if item["role"] == PLOT],
        sheets=[item for item in images if item["role"] == SHEET],
    )


def in_order(outputs: Iterable[View]) -> list[View]:
    """Group by group, and within one by role: the input first, the method after what it is compared with."""
    kept = list(outputs)
    groups = [group for group in dict.fromkeys(map(group_of, kept)) if group is not None]
    places = {group: place for place, group in enumerate(groups)}
    return sorted(kept, key=lambda item: (places.get(group_of(item), 0), _rank(item)))


def group_of(item: View) -> Any:
    """What results that are compared with one another have in common: a name the engine gives them, or the seed."""
    return item["attributes"].get("group", seed_of(item))


def seeds_of(items: Iterable[View]) -> list[Any]:
    """The seeds the results were made from, in the order of their saving."""
    return [seed for seed in dict.fromkeys(seed_of(item) for item in items) if seed is not None]


def seed_of(item: View) -> Any:
    """The seed a result was made from, None where the engine does not say."""
    return item["attributes"].get("seed")


def poster_of(item: View, outputs: Sequence[View]) -> View | None:
    """The still picture an engine saved for `item`: the one that names it, or the one of its method and seed."""
    posters = [each for each in outputs if each["role"] == POSTER and each["kind"] == "image"]
    named = [each for each in posters if each["attributes"].get("of") == item["name"]]
    alike = [each for each in posters if "of" not in each["attributes"] and _maker(each) == _maker(item)]
    return next(iter(named or alike), None)


def cover(outputs: Sequence[View]) -> View | None:
    """What stands for the job in a list: the method's first result that is a picture, a clip or has a poster."""
    shown = [item for item in outputs if item["role"] not in BESIDES]
    shown.sort(key=lambda item: (item["role"] != "method", -_rank(item)))
    found = (poster_of(item, outputs) or (item if item["kind"] in COVERS else None) for item in shown)
    return next((item for item in found if item is not None), None)


def numbers_under(rows: Sequence[Mapping[str, Any]], outputs: Sequence[View]) -> dict[str, list[dict[str, Any]]]:
    """Name of a result -> its first few numbers, from the rows of the table that have a good and a bad."""
    measured = [item["name"] for item in outputs if item["metrics"]]
    told = [row for row in rows if row["better"]][:NUMBERS]
    return {
        name: [{"title": row["title"], "unit": row["unit"], **row["cells"][place]} for row in told]
        for place, name in enumerate(measured)
    }


def _rank(item: View) -> int:
    return ORDER.index(item["role"]) if item["role"] in ORDER else len(ORDER)


def _maker(item: View) -> tuple[Any, Any]:
    return item["attributes"].get("method"), seed_of(item)
