"""Volume rendering: where samples lie on a ray, what they add up to, and what keeps densities honest.

Follows the released implementation of ProlificDreamer (arXiv 2305.16213): samples uniform in depth, importance
samples after them, and the field evaluated once for each. Distances are along unnormalised rays: they are depths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.prolificdreamer.cameras import ray_box_bounds

Field = Callable[[Tensor], tuple[Tensor, Tensor]]  # points [M, 3] -> density [M], albedo [M, 3]


@dataclass(frozen=True)
class Rendering:
    """What a bundle of rays sees."""

    image: Tensor  # [R, 3]
    depth: Tensor  # [R], sum of weight times distance, not divided by the opacity
    opacity: Tensor  # [R]
    weights: Tensor  # [R, S]
    z: Tensor  # [R, S]


def frequency_encode(x: Tensor, degree: int) -> Tensor:  # [N, D] -> [N, D (1 + 2 degree)]
    """[x, sin x, cos x, sin 2x, cos 2x, ...], without pi."""
    angles = [x * 2**power for power in range(degree)]
    return torch.cat([x, *(part for angle in angles for part in (angle.sin(), angle.cos()))], dim=-1)


def density_blob(x: Tensor, scale: float, radius: float, kind: Literal["linear", "gaussian"] = "linear") -> Tensor:
    """The bias [N] of the density before softplus, which starts an object: scale (1 - |x| / r).

    A negative scale starts a hollow scene; "gaussian" is DreamFusion's scale exp(-|x|^2 / 2 r^2).
    """
    if kind == "gaussian":
        return scale * torch.exp(-x.square().sum(dim=-1) / (2 * radius**2))
    if kind != "linear":
        raise ValueError(f"density blob {kind!r}: linear or gaussian")
    return scale * (1 - x.norm(dim=-1) / radius)


def activated_density(raw: Tensor, bias: Tensor) -> Tensor:
    """softplus(raw + bias)."""
    return F.softplus(raw + bias)


def shade(
    albedo: Tensor,  # [N, 3]
    normal: Tensor,  # [N, 3], unit
    light: Tensor,  # [3], unit, towards the light
    ambient: float,
    mode: Literal["albedo", "normal", "textureless", "lambertian"],
) -> Tensor:  # [N, 3]
    """A surface under one light: its colour, its normal as a colour, grey, or colour times light."""
    if mode == "albedo":
        return albedo
    if mode == "normal":
        return (normal + 1) / 2
    lit = ambient + (1 - ambient) * (normal @ light).clamp(min=0)[..., None]
    if mode == "textureless":
        return lit.expand_as(albedo)
    if mode == "lambertian":
        return albedo * lit
    raise ValueError(f"shading {mode!r}: albedo, normal, textureless or lambertian")


def sample_pdf(
    bins: Tensor,  # [R, T], ascending
    weights: Tensor,  # [R, T - 1], of the intervals
    n_samples: int,
    u: Tensor | None = None,  # [R, n] in [0, 1); None: the middles of n equal parts
    det: bool = True,
) -> Tensor:  # [R, n]
    """Points distributed as the weights say, by the inverse of their cumulated sum. `det` says how u was made."""
    weights = weights + 1e-5
    share = weights / weights.sum(dim=-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(share[:, :1]), share.cumsum(dim=-1)], dim=-1)
    if u is None:
        middles = (torch.arange(n_samples, dtype=bins.dtype, device=bins.device) + 0.5) / n_samples
        u = middles.expand(len(bins), n_samples)
    above = torch.searchsorted(cdf, u.contiguous(), right=True)
    below, above = (above - 1).clamp(min=0), above.clamp(max=cdf.shape[-1] - 1)
    cdf_low, cdf_high = cdf.gather(1, below), cdf.gather(1, above)
    low, high = bins.gather(1, below), bins.gather(1, above)
    span = cdf_high - cdf_low
    span = torch.where(span < 1e-5, torch.ones_like(span), span)
    return low + (u - cdf_low) / span * (high - low)


def sample_weights(sigma: Tensor, z: Tensor, last_delta: Tensor) -> Tensor:  # [R, S], [R, S], [R, 1] -> [R, S]
    """w = alpha T with alpha = 1 - exp(-sigma delta) and T the light that is left."""
    delta = torch.cat([z[:, 1:] - z[:, :-1], last_delta], dim=-1)
    alpha = 1 - torch.exp(-sigma * delta)
    left = torch.cumprod(1 - alpha + 1e-15, dim=-1)
    return alpha * torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], dim=-1)


def composite(
    sigma: Tensor,  # [R, S]
    z: Tensor,  # [R, S], ascending
    last_delta: Tensor,  # [R, 1], length of the last interval
    rgb: Tensor,  # [R, S, 3]
    bg: Tensor,  # [3] or [R, 3]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # weights [R, S], opacity [R], depth [R], image [R, 3]
    """Samples from near to far over a background."""
    weights = sample_weights(sigma, z, last_delta)
    opacity = weights.sum(dim=-1)
    depth = (weights * z).sum(dim=-1)
    image = (weights[..., None] * rgb).sum(dim=-2) + (1 - opacity)[:, None] * bg
    return weights, opacity, depth, image


def render_rays(
    field: Field,
    o: Tensor,  # [R, 3]
    d: Tensor,  # [R, 3]
    *,
    bound: float,
    min_near: float,
    num_steps: int,
    upsample_steps: int,
    bg: Tensor,  # [3] or [R, 3]
    jitter: Tensor | None = None,  # [R, num_steps] in [0, 1); None: none
    u: Tensor | None = None,  # [R, upsample_steps] in [0, 1), for the importance samples
    box: tuple[Tensor, Tensor] | None = None,  # centre [3] and half sides [3] of a smaller volume within the cube
) -> Rendering:
    """Uniform samples in the cube, importance samples where they found something, all composited together.

    The importance samples are placed without gradient; the densities they were placed by keep theirs.
    """
    near, far = ray_bounds(o, d, bound, min_near, box)
    step = (far - near) / num_steps
    z = near + (far - near) * torch.linspace(0, 1, num_steps, dtype=o.dtype, device=o.device)
    if jitter is not None:
        z = z + (jitter - 0.5) * step
    sigma, rgb = _evaluate(field, o, d, z, bound)
    if upsample_steps:
        with torch.no_grad():
            weights = sample_weights(sigma, z, step)
            middles = (z[:, 1:] + z[:, :-1]) / 2
            new_z = sample_pdf(middles, weights[:, 1:-1], upsample_steps, u)
        new_sigma, new_rgb = _evaluate(field, o, d, new_z, bound)
        z, order = torch.cat([z, new_z], dim=-1).sort(dim=-1)
        sigma = torch.cat([sigma, new_sigma], dim=-1).gather(1, order)
        rgb = torch.cat([rgb, new_rgb], dim=1).gather(1, order[..., None].expand(-1, -1, 3))
    weights, opacity, depth, image = composite(sigma, z, step, rgb, bg)
    return Rendering(image, depth, opacity, weights, z)


def ray_bounds(
    o: Tensor, d: Tensor, bound: float, min_near: float, box: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:  # near, far, [R, 1] each; 1e9 for a miss
    """Where rays enter and leave the cube, or a smaller box in it: scaled to the unit cube, distances stay."""
    if box is None:
        return ray_box_bounds(o, d, bound, min_near=min_near)
    centre, half = box
    return ray_box_bounds((o - centre) / half, d / half, 1.0, min_near=min_near)


def _evaluate(field: Field, o: Tensor, d: Tensor, z: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    points = (o[:, None] + d[:, None] * z[..., None]).clamp(-bound, bound)
    sigma, rgb = field(points.flatten(0, 1))
    return sigma.view(z.shape), rgb.view(*z.shape, 3)


def alpha_entropy(weights: Tensor) -> Tensor:  # any shape -> []
    """Mean binary entropy of every sample's weight, in bits: fog costs, empty and solid do not."""
    weights = weights.clamp(1e-5, 1 - 1e-5)
    return -(weights * weights.log2() + (1 - weights) * (1 - weights).log2()).mean()


def opacity_l2(opacity: Tensor) -> Tensor:  # [R] -> []
    """Mean squared opacity."""
    return opacity.square().mean()


def orientation_loss(weights: Tensor, normals: Tensor, dirs: Tensor) -> Tensor:  # [R, S], [R, S, 3] twice -> []
    """Normals that look away from the camera where something is seen; weights get no gradient."""
    away = (normals * dirs).sum(dim=-1).clamp(min=0).square()
    return (weights.detach() * away).sum(dim=-1).mean()


def sparsity_loss(opacity: Tensor) -> Tensor:  # [R] -> []
    """Mean sqrt(o^2 + 0.01)."""
    return (opacity.square() + 0.01).sqrt().mean()


def opaque_loss(opacity: Tensor) -> Tensor:  # [R] -> []
    """Binary cross-entropy of the opacity with itself: rays should see all or nothing."""
    opacity = opacity.clamp(1e-3, 1 - 1e-3)
    return F.binary_cross_entropy(opacity, opacity)


def z_variance_loss(weights: Tensor, z: Tensor, opacity: Tensor) -> Tensor:  # [R, S], [R, S], [R] -> []
    """Mean variance of depth along rays that see something (o > 0.5); 0 where none does (HiFA)."""
    share = weights / opacity.clamp(min=1e-5)[:, None]
    mean = (share * z).sum(dim=-1, keepdim=True)
    variance = (share * (z - mean).square()).sum(dim=-1)
    seen = opacity > 0.5
    return variance[seen].mean() if seen.any() else variance.sum() * 0


def deferred_backward(
    render: Callable[[int, int], Rendering],  # rays [start, end)
    count: int,
    chunk: int,
    image_gradient: Callable[[Tensor, Tensor], Tensor],  # image [count, 3], opacity [count] -> d loss / d image
    regulariser: Callable[[Rendering], Tensor] | None = None,  # a chunk -> its share of a further loss
) -> tuple[Tensor, Tensor]:  # image [count, 3], opacity [count], without a graph
    """Back-propagate through an image rendered in chunks, holding the graph of one chunk at a time.

    Renders without a graph, asks for the gradient of the whole image, and renders again chunk by chunk with it; the
    gradients equal direct ones as long as `render` draws the same samples twice. One chunk is rendered once.
    """
    parts = [(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    with torch.set_grad_enabled(len(parts) == 1):
        first = [render(*part) for part in parts]
    image = torch.cat([part.image.detach() for part in first])
    opacity = torch.cat([part.opacity.detach() for part in first])
    kept = first[0] if len(parts) == 1 else None
    del first
    gradient = image_gradient(image, opacity)
    for start, end in parts:
        part = kept or render(start, end)
        loss = (part.image * gradient[start:end]).sum()
        if regulariser is not None:
            loss = loss + regulariser(part)
        if loss.requires_grad:
            loss.backward()
    return image, opacity
