"""ProlificDreamer, top to bottom: distil fields, refine their surfaces, refine their colours, export, measure.

Every chosen method starts from the same seed. What a step is stands in `particles`, `geometry`, `texture` and
`playground`; how a long run survives stands in `training`. A killed run goes on from its newest checkpoint and gives
the same bytes; a cancelled one first keeps what it has. Knows no page and no store.
"""

from __future__ import annotations

import numpy as np

from engines.prolificdreamer import sheets
from engines.prolificdreamer.objects import ObjectWork
from engines.prolificdreamer.params import ProlificDreamerParams
from engines.prolificdreamer.pictures import PictureWork
from engines.prolificdreamer.spec import validate
from engines.prolificdreamer.toy import MEAN, VARIANCE, distil_gaussian
from studio.contract import Context

TOY_STEPS = 4000


def run(ctx: Context, params: ProlificDreamerParams) -> None:
    """Make what is asked for with every chosen method, from one seed."""
    validate(params)
    ctx.check()
    if params.task == "toy":
        make_toy(ctx, params)
    elif params.task == "playground":
        PictureWork(ctx, params).run()
    else:
        ObjectWork(ctx, params).run()


def make_toy(ctx: Context, params: ProlificDreamerParams) -> None:
    """Both algorithms on the Gaussian in the plane, as a plot and as numbers."""
    found = {}
    for done, (method, title) in enumerate((("sds", "SDS"), ("vsd", "VSD"))):
        ctx.check()
        ctx.progress(done, 2, f"{title}: {TOY_STEPS} steps of 64 particles")
        found[title] = distil_gaussian(method, steps=TOY_STEPS, seed=params.seed)
    name = f"toy-{params.seed}.png"
    clouds = {title: result.particles.numpy() for title, result in found.items()}
    plot = sheets.toy_plot(clouds, MEAN, VARIANCE)
    ctx.save(name, "image", plot, role="method", title="The toy in the plane", seed=params.seed)
    numbers = {f"variance_{title.lower()}": result.variance.tolist() for title, result in found.items()}
    off = (found["VSD"].variance.numpy() / np.array(VARIANCE) - 1).tolist()
    ctx.metrics(name, **numbers, true_variance=list(VARIANCE), variance_off=max(map(abs, off)))
    ctx.progress(2, 2, "Done")
