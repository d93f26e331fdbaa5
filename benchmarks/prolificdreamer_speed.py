"""What a step costs, beside twins written from the specification of what the two reference codes do.

    python -m benchmarks.prolificdreamer_speed --rounds 5 --side 64
    python -m benchmarks.prolificdreamer_speed --memory

Same tiny networks and sizes for all. Twins: the released code evaluates a field on 64 + 32 samples and then all 96
again for colour, goes back through a whole picture at once, and extracts the frozen surface of stage 3 anew at every
step; threestudio takes 512 samples a ray with an occupancy grid, and asks its estimator with and without the camera
although the second answer has weight zero. Ours takes turns with each twin in a round. Goals: at least twice as fast,
and memory that does not grow with the size of the picture.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from engines.prolificdreamer.cameras import ray_box_bounds
from engines.prolificdreamer.distillation import Distiller, Guidance, Learning
from engines.prolificdreamer.estimator import copy_estimator
from engines.prolificdreamer.field import Field, FieldConfig
from engines.prolificdreamer.geometry import shape_from
from engines.prolificdreamer.meshes import Surface
from engines.prolificdreamer.particles import NerfConfig, NerfStage
from engines.prolificdreamer.prompts import Wording
from engines.prolificdreamer.raster import RayCaster
from engines.prolificdreamer.renderer import Regularisers, RenderConfig, Renderer
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.teacher import Teacher, frozen
from engines.prolificdreamer.texture import TextureConfig, TextureStage
from engines.prolificdreamer.viewpoints import Views, turntable
from engines.prolificdreamer.volume import composite, sample_pdf, sample_weights

SAMPLES, IMPORTANCE = 64, 32  # released
LARGEST_TWIN = 128  # pixels; at twice the side it needs 26 GB
UNIFORM = 512  # samples a ray in threestudio
FIELD = FieldConfig(levels=8, features=2, base=16, finest=256, log2_table=14, background="none")
WORDING = Wording("a red car")


def streams() -> Streams:
    """Randomness from a fixed seed."""
    return Streams(lambda seed: torch.Generator().manual_seed(seed), "speed")


def view(index: int) -> Views:
    """The only camera of a step."""
    return turntable(1, radius=1.8, theta_deg=70, fovy=45, start_deg=37.0 * index)


def small_teacher(cells: int = 16) -> Teacher:
    """Random networks of the pocket model's shape."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=cells,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(48, 80, 112),
        norm_num_groups=8,
        cross_attention_dim=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    ).eval()
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        latent_channels=4,
        norm_num_groups=16,
        layers_per_block=1,
    ).eval()
    texts = {
        text: torch.randn(24, 128, generator=torch.Generator().manual_seed(i)) for i, text in enumerate(WORDING.all)
    }
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    return Teacher(unet, vae, betas, texts)


# -- twins ---------------------------------------------------------------------------------------------------------


def reference_render(field: Field, o: Tensor, d: Tensor, jitter: Tensor, u: Tensor) -> Tensor:  # [R, 3]
    """As the released code: densities of 64 + 32 samples, then density and colour of all 96 once more."""
    near, far = ray_box_bounds(o, d, field.config.bound, min_near=0.1)
    step = (far - near) / SAMPLES
    z = near + (far - near) * torch.linspace(0, 1, SAMPLES) + (jitter - 0.5) * step

    def at(z: Tensor) -> Tensor:
        return (o[:, None] + d[:, None] * z[..., None]).clamp(-field.config.bound, field.config.bound).flatten(0, 1)

    sigma = field(at(z))[0].view(z.shape)
    with torch.no_grad():
        weights = sample_weights(sigma, z, step)
        new = sample_pdf((z[:, 1:] + z[:, :-1]) / 2, weights[:, 1:-1], IMPORTANCE, u)
    new_sigma = field(at(new))[0].view(new.shape)
    z, order = torch.cat([z, new], dim=-1).sort(dim=-1)
    sigma = torch.cat([sigma, new_sigma], dim=-1).gather(1, order)
    rgb = field(at(z))[1].view(*z.shape, 3)  # its density is thrown away
    return composite(sigma, z, step, rgb, torch.full((3,), 0.5))[3]


def released_step(stage: NerfStage, side: int, index: int) -> None:
    """The step of the first stage with the released renderer: phi is asked once."""
    distiller = stage.distiller
    views = view(index)
    image = reference_image(stage, side, index)
    gradient, latents, _ = distiller.look(image.detach(), views, index, stage.streams)
    stage.optimisers[0].zero_grad(set_to_none=True)
    (image * gradient).sum().backward()
    stage.optimisers[0].step()
    distiller.learn(latents, views, index, stage.streams)


def reference_image(stage: NerfStage, side: int, index: int) -> Tensor:  # [1, 3, side, side]
    """A view as the released code renders it, ready to go back through."""
    views = view(index)
    o, d = views.rays(side)
    draw = torch.Generator().manual_seed(index)
    jitter, u = torch.rand(len(o), SAMPLES, generator=draw), torch.rand(len(o), IMPORTANCE, generator=draw)
    return reference_render(stage.particles[0], o, d, jitter, u).view(1, side, side, 3).permute(0, 3, 1, 2)


@torch.no_grad()
def asked_again(distiller: Distiller, index: int) -> None:
    """The second branch of threestudio's estimator, without a camera, whose answer has weight zero."""
    assert distiller.estimator is not None
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(index))
    views = view(0)
    text, hidden = distiller.teacher.text([WORDING.plain]), torch.ones(1, dtype=torch.bool)
    distiller.estimator(latents, torch.tensor([500]), text, views.c2w, hidden)


# -- measurements --------------------------------------------------------------------------------------------------


def timed(run: Callable[[int], object], index: int) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    run(index)
    return time.perf_counter() - begun


def in_turns(
    ours: Callable[[int], object], theirs: Callable[[int], object], rounds: int
) -> tuple[float, float, float]:
    """Median seconds of both, and the median over rounds of their ratio."""
    ours(0), theirs(0)
    pairs = [(timed(ours, index), timed(theirs, index)) for index in range(1, rounds + 1)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


def nerf_stage(
    distiller: Distiller, side: int, occupancy: int, samples: int = SAMPLES, importance: int = IMPORTANCE
) -> NerfStage:
    """One particle, at the released sampling unless told otherwise."""
    render = RenderConfig(samples, importance, chunk=65_536, density_noise=False)
    config = NerfConfig(
        steps=1000, side=side, side_early=side, occupancy=occupancy, entropy=0.0, volume=FIELD, render=render
    )
    return NerfStage(replace(config, random_backdrop_step=-1), distiller, streams(), "cpu")


def report(rounds: int, side: int) -> None:
    """The table."""
    print("| measured | ours | twin | times as fast |\n|---|---|---|---|")

    def line(what: str, ours: Callable[[int], object], theirs: Callable[[int], object]) -> None:
        mine, other, ratio = in_turns(ours, theirs, rounds)
        print(f"| {what} | {mine:.3f} s | {other:.3f} s | {ratio:.2f} |", flush=True)

    teacher = small_teacher()
    with frozen(teacher.unet, teacher.vae), copy_estimator(teacher.unet, "epsilon", streams().at("phi")) as phi:
        distiller = Distiller(teacher, phi, WORDING, Guidance(), Learning(warmup=0))
        plain, culled = nerf_stage(distiller, side, 0), nerf_stage(distiller, side, 32)
        twin = nerf_stage(distiller, side, 0)
        line(
            f"render and back, {side} px, 64 + 32 samples",
            lambda i: rendered(plain, side, i),
            lambda i: twin_rendered(twin, side, i),
        )
        line(
            "the same with an occupancy grid",
            lambda i: rendered(culled, side, i),
            lambda i: twin_rendered(twin, side, i),
        )
        line(f"step of stage 1, {side} px, the released code's", plain.step, lambda i: released_step(twin, side, i))
        line("the same with an occupancy grid", culled.step, lambda i: released_step(twin, side, i))
        dense = nerf_stage(distiller, side, 32, UNIFORM, 0)

        def threestudio(index: int) -> None:
            dense.step(index)
            asked_again(distiller, index)

        line(f"step of stage 1, {side} px, threestudio's: grids in both", culled.step, threestudio)
        line(f"step of stage 3, {side} px, grid of 64", *texture_steps(distiller, side))


def rendered(stage: NerfStage, side: int, index: int) -> None:
    """A render of ours, and back."""
    views = view(index)
    grid = stage._renewed_grid(0, index)
    wanted = torch.ones(1, 3, side, side)
    off = Regularisers(entropy=0.0)
    stage.renderer.backward(
        stage.particles[0], views, side, lambda _: wanted, off, streams=stage.streams, occupancy=grid
    )


def twin_rendered(stage: NerfStage, side: int, index: int) -> None:
    """A render of the released code's kind, and back."""
    reference_image(stage, side, index).sum().backward()


def texture_steps(distiller: Distiller, side: int) -> tuple[Callable[[int], object], Callable[[int], object]]:
    """A step of stage 3 on a surface that is kept, and on one that is extracted every time."""
    particle = Field(FIELD, streams().at("field"))
    shape, used = shape_from(particle.density, 2.5, 64, 1.0, "cpu")
    config = TextureConfig(steps=1000, side=side, random_backdrop_step=-1)
    with torch.no_grad():
        verts, faces = shape.surface()
    surface = Surface(verts, faces, used)
    stage = TextureStage(config, surface, particle, distiller, RayCaster(), streams())

    def twin(index: int) -> None:
        with torch.no_grad():
            stage.surface = Surface(*shape.surface(), used)
        stage.step(index)

    def ours(index: int) -> None:
        stage.surface = surface
        stage.step(index)

    return ours, twin


def peak(side: int, twin: bool) -> float:
    """MB that a process of its own needs at most for one render of this size and back, beyond what it had before.

    Raises CalledProcessError where it fails, as where memory does not suffice.
    """
    code = f"from benchmarks.prolificdreamer_speed import grown; print(grown({side}, {twin}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def grown(side: int, twin: bool) -> float:
    """MB by which the largest size of this process grows while it renders and goes back, our way or the twin's."""
    torch.set_num_threads(1)
    particle = Field(FIELD, streams().at("field"))
    renderer = Renderer(RenderConfig(SAMPLES, IMPORTANCE, chunk=1024, density_noise=False))
    views = view(0)

    def once(side: int) -> None:
        if twin:
            o, d = views.rays(side)
            middle, u = torch.full((len(o), SAMPLES), 0.5), torch.full((len(o), IMPORTANCE), 0.5)
            reference_render(particle, o, d, middle, u).sum().backward()
        else:
            renderer.backward(particle, views, side, torch.ones_like, Regularisers(entropy=0.0), streams=streams())

    once(16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    once(side)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def memory() -> None:
    """Peak of a render and back over sizes, in chunks of 1024 rays and as the released code does it, all at once."""
    print("| side | ours, beyond 16 px | twin |\n|---|---|---|")
    for side in (32, 64, 128, 256):
        twin = f"{peak(side, True):.0f} MB" if side <= LARGEST_TWIN else "grows with the square"
        print(f"| {side} px | {peak(side, False):.0f} MB | {twin} |", flush=True)


def check_twin() -> None:
    """The twin and ours draw the same picture: they differ in what they evaluate, not in what they see."""
    particle = Field(FIELD, streams().at("field"))
    o, d = view(0).rays(16)
    middle = torch.full((256, SAMPLES), 0.5)
    u = ((torch.arange(IMPORTANCE) + 0.5) / IMPORTANCE).expand(256, -1)
    theirs = reference_render(particle, o, d, middle, u).view(1, 16, 16, 3).permute(0, 3, 1, 2)
    renderer = Renderer(RenderConfig(SAMPLES, IMPORTANCE, density_noise=False))
    grey = torch.full((1, 3), 0.5)
    ours, _, _ = renderer.look(particle, view(0), 16, backdrop=grey)
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-4, rtol=0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    check_twin()
    if given.memory:
        memory()
    else:
        report(given.rounds, given.side)


if __name__ == "__main__":
    main()
