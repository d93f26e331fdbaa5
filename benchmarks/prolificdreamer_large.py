"""What a step costs at the size of Stable Diffusion 2.1: seconds and peak memory at 512 px, with random weights.

    python -m benchmarks.prolificdreamer_large --device cuda --out large.jsonl
    python -m benchmarks.prolificdreamer_large --small

Networks of the published shapes are made on the device, in half precision; time and memory do not depend on what they
say. Stage 1 is the released configuration, once with an occupancy grid and once, as released, without one. Which face
a pixel sees is found here by the nearest middle of a face, so stages 2 and 3 are without the time of a real
rasteriser. `--small` is a check that everything runs, on any device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from engines.prolificdreamer.cameras import focal_length
from engines.prolificdreamer.distillation import Distiller, Guidance
from engines.prolificdreamer.estimator import lora_estimator
from engines.prolificdreamer.field import Field, FieldConfig
from engines.prolificdreamer.geometry import GeometryConfig, GeometryStage, shape_from
from engines.prolificdreamer.meshes import extract
from engines.prolificdreamer.particles import NerfConfig, NerfStage
from engines.prolificdreamer.prompts import Wording
from engines.prolificdreamer.raster import Fragments, meet
from engines.prolificdreamer.renderer import RenderConfig
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.teacher import Teacher, frozen
from engines.prolificdreamer.texture import TextureConfig, TextureStage
from engines.prolificdreamer.viewpoints import Views, turntable

WORDING = Wording("a pineapple")
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
RANK = 4  # of the adapters, as released
COARSE = 96  # pixels a side on which middles of faces are sorted
GRID = 96  # cells of the surface; the released 256 take a minute to lay out
Step = Callable[[int], object]


class Middles:
    """A stand-in for a rasteriser: a patch of pixels sees the face whose middle is nearest there. For timing only."""

    def fragments(self, verts: Tensor, faces: Tensor, views: Views, side: int) -> Fragments:
        """See `raster.Rasteriser`."""
        middle = verts.detach()[faces].mean(dim=1)
        cells = min(COARSE, side)
        maps = [_nearest(middle, pose, fovy, cells) for pose, fovy in zip(views.c2w, views.fovy, strict=True)]
        small = torch.stack(maps)[:, None].float()  # face numbers are exact below 2^24
        face = torch.nn.functional.interpolate(small, (side, side))[:, 0].long()
        o, d = views.rays(side)
        bary, t = meet(verts, faces, face.flatten(), o, d)
        return Fragments(face, bary.view(*face.shape, 3), t.view(face.shape))

    def smoothed(self, picture: Tensor, verts: Tensor, faces: Tensor, views: Views) -> Tensor:
        """As it is."""
        return picture


def _nearest(middle: Tensor, pose: Tensor, fovy: float, cells: int) -> Tensor:  # [F, 3] -> int64 [cells, cells]
    """The number of the nearest point seen through each cell, -1 for none."""
    local = (middle - pose[:3, 3]) @ pose[:3, :3]
    depth = -local[:, 2]
    scale = focal_length(fovy, cells) / depth
    column, row = (local[:, 0] * scale + cells / 2).long(), (cells / 2 - local[:, 1] * scale).long()
    on = (depth > 0) & (column >= 0) & (column < cells) & (row >= 0) & (row < cells)
    cell = (row * cells + column)[on]
    least = depth.new_full((cells**2,), torch.inf).scatter_reduce(0, cell, depth[on], "amin")
    first = depth[on] <= least[cell]
    found = torch.full((cells**2,), -1, dtype=torch.int64, device=middle.device)
    found[cell[first]] = on.nonzero()[:, 0][first]
    return found.view(cells, cells)


def unet(device: str, dtype: torch.dtype, *, small: bool) -> UNet2DConditionModel:
    """Of Stable Diffusion 2.1 base, or with the same parts and little in them."""
    with torch.device(device):
        made = UNet2DConditionModel(
            sample_size=8 if small else 64,
            cross_attention_dim=32 if small else 1024,
            attention_head_dim=(1, 2, 4, 4) if small else (5, 10, 20, 20),
            block_out_channels=(32, 64, 64, 64) if small else (320, 640, 1280, 1280),
            use_linear_projection=True,
        )
    return made.to(dtype).to(memory_format=torch.channels_last).eval()


def autoencoder(device: str, dtype: torch.dtype, *, small: bool) -> AutoencoderKL:
    """Of Stable Diffusion, or a small one."""
    with torch.device(device):
        made = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32,) * 4 if small else (128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
        )
    return made.to(dtype).eval()


@contextmanager
def distillers(device: str, *, small: bool) -> Iterator[tuple[Distiller, Distiller]]:
    """VSD with adapters on a second model that predicts v, and SDS at guidance 100 for surfaces."""
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    taught, second = (unet(device, dtype, small=small) for _ in range(2))
    vae = autoencoder(device, dtype, small=small)
    width = taught.config.cross_attention_dim
    texts = {text: torch.randn(77, width, device=device) for text in WORDING.all}
    teacher = Teacher(taught, vae, BETAS, texts)
    with (
        frozen(taught, vae, second),
        lora_estimator(second, "v_prediction", RANK, torch.Generator().manual_seed(0)) as phi,
    ):
        yield Distiller(teacher, phi, WORDING, Guidance()), Distiller(teacher, None, WORDING, Guidance("sds", 100.0))


def measured(name: str, step: Step, device: str, seconds: float) -> dict[str, object]:
    """Median seconds of steps after a first one, for about so long in all, and the peak of what is allocated."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < 2 or (time.perf_counter() - begun < seconds and len(times) < 20):
        if cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        step(len(times))
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - now)
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
    return {"step": name, "seconds": statistics.median(times[1:]), "first": times[0], "n": len(times) - 1, "gb": peak}


def jobs(vsd: Distiller, sds: Distiller, device: str, *, small: bool) -> Iterator[tuple[str, Step]]:
    """Name and step of each measurement; what one needs is made when its turn comes."""
    streams = Streams(lambda seed: torch.Generator().manual_seed(seed), "large")
    side = 64 if small else 512
    views = turntable(1, radius=1.25, theta_deg=60, fovy=55).to(device)
    image = torch.rand(1, 3, side, side, device=device)

    def distil(index: int) -> None:
        _, latents, _ = vsd.look(image, views, index, streams)
        vsd.learn(latents, views, index, streams)

    yield f"teacher, phi and its training, a picture of {side} px", distil
    volume = FieldConfig(log2_table=14 if small else 19)
    released = NerfConfig(
        side=side, side_early=side, volume=volume, render=RenderConfig(8, 4) if small else RenderConfig()
    )
    yield "stage 1, occupancy grid of 64", NerfStage(replace(released, occupancy=64), vsd, streams, device).step
    yield "stage 1, as released", NerfStage(released, vsd, streams, device).step
    particle = Field(volume, streams.at("field")).to(device)
    grid = 16 if small else GRID
    surface = extract(particle.density, 2.5, grid, 1.0, device)
    texture = TextureStage(TextureConfig(side=side), surface, particle, vsd, Middles(), streams)
    yield f"stage 3, {len(surface.faces)} faces, without a rasteriser", texture.step
    shape, _ = shape_from(particle.density, 2.5, grid, 1.0, device)
    geometry = GeometryStage(GeometryConfig(side=side, grid=grid), shape, sds, Middles(), streams)
    yield f"stage 2, grid of {grid}, without a rasteriser", geometry.step


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks and pictures: does everything run?")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement, at least two steps")
    parser.add_argument("--out", type=Path, help="file of the rows")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    where = torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else "processor"
    print("| step | seconds | first | n | peak GB |\n|---|---|---|---|---|", flush=True)
    with distillers(given.device, small=given.small) as (vsd, sds):
        for name, step in jobs(vsd, sds, given.device, small=given.small):
            row = measured(name, step, given.device, 0.0 if given.small else given.seconds)
            peak = "" if row["gb"] is None else f"{row['gb']:.1f}"
            print(f"| {name} | {row['seconds']:.3f} | {row['first']:.3f} | {row['n']} | {peak} |", flush=True)
            if given.out is not None:
                with given.out.open("a") as file:
                    file.write(json.dumps({**row, "device": where, "small": given.small}) + "\n")


if __name__ == "__main__":
    main()
