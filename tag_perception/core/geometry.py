"""Projection, rotations and box corners: pure functions on tensors of any leading shape.

Frames are defined in `structures`. Euler angles are ZYX in C: R = Rz(psi) Ry(theta) Rx(phi); the
quaternion is (w, x, y, z). All functions keep dtype and device of their inputs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

OPTICAL_R_CAMERA = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
"""K3 with p_S = K3 p_C: (x, y, z)_S = (-y, -z, x)_C."""

NEAR_M = 0.01
"""Clipping plane in front of the camera used by the official amodal box, metres."""

# Corner order: bottom (BLB BRB FRB FLB) then top, in units of half length, width, height.
_CORNERS = torch.tensor(
    [
        [-1, 1, -1], [-1, -1, -1], [1, -1, -1], [1, 1, -1],
        [-1, 1, 1], [-1, -1, 1], [1, -1, 1], [1, 1, 1],
    ],
    dtype=torch.float64,
)  # fmt: skip
CORNER_NAMES = ('BLB', 'BRB', 'FRB', 'FLB', 'BLT', 'BRT', 'FRT', 'FLT')
"""Back/Front, Left/Right, Bottom/Top, the official names."""
EDGES = (
    (0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7),
)  # fmt: skip
"""The twelve box edges as pairs of corner indices."""


def camera_to_optical(point_cam: Tensor) -> Tensor:
    """(…, 3) from C to S."""
    x, y, z = point_cam.unbind(-1)
    return torch.stack((-y, -z, x), -1)


def optical_to_camera(point_optical: Tensor) -> Tensor:
    """(…, 3) from S to C."""
    x, y, z = point_optical.unbind(-1)
    return torch.stack((z, -x, -y), -1)


def project(point_optical: Tensor, intrinsics: Tensor) -> Tensor:
    """Pixels (…, 2) of points (…, 3) in S; intrinsics (…, 4) = fx, fy, u0, v0. Needs z > 0."""
    x, y, z = point_optical.unbind(-1)
    fx, fy, u0, v0 = intrinsics.unbind(-1)
    return torch.stack((fx * x / z + u0, fy * y / z + v0), -1)


def unproject(pixel: Tensor, depth_m: Tensor, intrinsics: Tensor) -> Tensor:
    """Points (…, 3) in S seen at pixels (…, 2) at depth z = depth_m (…)."""
    u, v = pixel.unbind(-1)
    fx, fy, u0, v0 = intrinsics.unbind(-1)
    return torch.stack(((u - u0) / fx * depth_m, (v - v0) / fy * depth_m, depth_m), -1)


def wrap_angle(angle_rad: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle_rad + math.pi, 2 * math.pi) - math.pi


def rotation_from_euler(psi_rad: Tensor, theta_rad: Tensor, phi_rad: Tensor) -> Tensor:
    """(…, 3, 3) Rz(psi) Ry(theta) Rx(phi): yaw, pitch (nose down > 0), roll (right down > 0)."""
    cz, sz = torch.cos(psi_rad), torch.sin(psi_rad)
    cy, sy = torch.cos(theta_rad), torch.sin(theta_rad)
    cx, sx = torch.cos(phi_rad), torch.sin(phi_rad)
    rows = (
        torch.stack((cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx), -1),
        torch.stack((sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx), -1),
        torch.stack((-sy, cy * sx, cy * cx), -1),
    )
    return torch.stack(rows, -2)


def euler_from_rotation(rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """psi, theta, phi of (…, 3, 3); the inverse of `rotation_from_euler` for |theta| < pi/2."""
    psi = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    theta = -torch.asin(rotation[..., 2, 0].clamp(-1, 1))
    phi = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2])
    return psi, theta, phi


def quaternion_from_euler(psi_rad: Tensor, theta_rad: Tensor, phi_rad: Tensor) -> Tensor:
    """(…, 4) unit quaternion w, x, y, z of Rz(psi) Ry(theta) Rx(phi)."""
    cz, sz = torch.cos(psi_rad / 2), torch.sin(psi_rad / 2)
    cy, sy = torch.cos(theta_rad / 2), torch.sin(theta_rad / 2)
    cx, sx = torch.cos(phi_rad / 2), torch.sin(phi_rad / 2)
    return torch.stack(
        (
            cz * cy * cx + sz * sy * sx,
            cz * cy * sx - sz * sy * cx,
            cz * sy * cx + sz * cy * sx,
            sz * cy * cx - cz * sy * sx,
        ),
        -1,
    )


def quaternion_from_rotation(rotation: Tensor) -> Tensor:
    """(…, 4) unit quaternion w, x, y, z with w ≥ 0 of (…, 3, 3); stable for every angle."""
    m = rotation
    diagonal = torch.stack((m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]), -1)
    trace = diagonal.sum(-1, keepdim=True)
    # 4 q_i² for i = w, x, y, z; the largest one is a safe divisor (Shepperd's method).
    squared = torch.cat((1 + trace, 1 + 2 * diagonal - trace), -1).clamp_min(0)
    best = squared.argmax(-1)
    wx, wy, wz = (m[..., b, a] - m[..., a, b] for a, b in ((1, 2), (2, 0), (0, 1)))
    xy, xz, yz = (m[..., a, b] + m[..., b, a] for a, b in ((0, 1), (0, 2), (1, 2)))
    w2, x2, y2, z2 = squared.unbind(-1)
    outer = torch.stack(  # row i is 4 q_i q
        (
            torch.stack((w2, wx, wy, wz), -1),
            torch.stack((wx, x2, xy, xz), -1),
            torch.stack((wy, xy, y2, yz), -1),
            torch.stack((wz, xz, yz, z2), -1),
        ),
        -2,
    )
    row = torch.gather(outer, -2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = torch.nn.functional.normalize(row, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def rotation_from_quaternion(quaternion: Tensor) -> Tensor:
    """(…, 3, 3) of a unit quaternion w, x, y, z (…, 4)."""
    w, x, y, z = quaternion.unbind(-1)
    rows = (
        torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), -1),
        torch.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)), -1),
        torch.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), -1),
    )
    return torch.stack(rows, -2)


def quaternion_multiply(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product (…, 4): first `right`, then `left`."""
    w1, x1, y1, z1 = left.unbind(-1)
    w2, x2, y2, z2 = right.unbind(-1)
    return torch.stack(
        (
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ),
        -1,
    )


def alpha_from_psi(psi_rad: Tensor, u: Tensor, fx: Tensor | float, u0: Tensor | float) -> Tensor:
    """Observation angle of MonoDLE: ry = -psi - pi/2 relative to the ray through column u."""
    return wrap_angle(-psi_rad - math.pi / 2 - torch.atan2(u - u0, torch.ones_like(u) * fx))


def psi_from_alpha(alpha_rad: Tensor, u: Tensor, fx: Tensor | float, u0: Tensor | float) -> Tensor:
    """Yaw in C; the inverse of `alpha_from_psi`."""
    return wrap_angle(-(alpha_rad + torch.atan2(u - u0, torch.ones_like(u) * fx)) - math.pi / 2)


def box_corners(center: Tensor, size_lwh_m: Tensor, rotation: Tensor) -> Tensor:
    """(…, 8, 3) corners in the frame of `center` (…, 3) and `rotation` (…, 3, 3)."""
    unit = _CORNERS.to(center)
    offsets = unit * (size_lwh_m / 2).unsqueeze(-2)
    return center.unsqueeze(-2) + offsets @ rotation.transpose(-1, -2)


def amodal_boxes(corners_cam: Tensor, intrinsics: Tensor, width: int, height: int) -> Tensor:
    """(N, 4) x1, y1, x2, y2 around the projected boxes (N, 8, 3), clipped to the image.

    Every edge is cut at z_S = NEAR_M first, as in the official evaluator; a box wholly behind the
    camera gives zeros.
    """
    optical = camera_to_optical(corners_cam)
    starts, ends = (optical[:, [edge[i] for edge in EDGES]] for i in (0, 1))
    z0, z1 = starts[..., 2], ends[..., 2]
    span = torch.where((z1 - z0).abs() < 1e-12, torch.ones_like(z0), z1 - z0)
    cut = starts + ((NEAR_M - z0) / span).clamp(0, 1)[..., None] * (ends - starts)
    crossing = (z0 < NEAR_M) != (z1 < NEAR_M)
    points = torch.cat((optical, cut), 1)
    visible = torch.cat((optical[..., 2] >= NEAR_M, crossing), 1)
    safe = torch.where(visible[..., None], points, points.new_tensor([0.0, 0.0, 1.0]))
    safe = torch.cat((safe[..., :2], safe[..., 2:].clamp_min(NEAR_M / 2)), -1)
    pixels = project(safe, intrinsics.to(safe))
    limit = pixels.new_tensor([width - 1, height - 1])
    pixels = torch.minimum(pixels.clamp_min(0), limit)
    low = torch.where(visible[..., None], pixels, limit).amin(1)
    high = torch.where(visible[..., None], pixels, pixels.new_zeros(2)).amax(1)
    box = torch.cat((low, high), -1)
    return torch.where(visible.any(1)[:, None], box, torch.zeros_like(box))
