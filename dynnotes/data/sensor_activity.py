"""sensor-activity: 2.56 seconds of a motion sensor on somebody's waist; what did they do for a part of that time?

The signals are SYNTHETIC: a grammar of movements makes them, with plausible figures that are fitted to no recording.
A window has 128 steps at 50 Hz of 6 channels, CHANNELS: acceleration in g (at rest 1 g upwards) and turning rate in
rad/s. Its wearer stands still and sways a little, but for one part, in which one of 8 activities is performed, from
its first step to its last: a cadence with harmonics and impacts (ACTIVITIES), a lean of the trunk that turns gravity,
or both. Each wearer has a pace, a strength, a form of every movement and a way of wearing the sensor of their own;
the 60 wearers are drawn once, and splits share none. Four things are drawn for each window, and known:

    active   steps in which the activity is performed, STEPS down to SHORTEST, anywhere in the window
    lost     steps that did not arrive, bursts of BURST, 0 to LOST; they read 0. The middle of the active part arrives
    shift    how far the sensor has turned on its belt, about any axis, in degrees, 0 to SHIFT
    noise    standard deviation of Gaussian noise on every channel, 0 to NOISE

    hard = ((STEPS - active) / (STEPS - SHORTEST) + lost / LOST + shift / SHIFT + noise / NOISE) / 4     in [0, 1]

The four go together: each is drawn within SPREAD of one latent difficulty, uniform in [0, 1] (and clipped).
`informative` is 1 for steps in which the activity is performed and that arrived, else 0: all others are the same
whatever is performed (they still show which way is up).

Recordings would have the same shape: the UCI set "Human Activity Recognition Using Smartphones" has windows of 128
steps at 50 Hz of 30 people, one text file per channel and split ("Inertial Signals/total_acc_x_train.txt", one window
a line), total acceleration in g, turning rate in rad/s, body acceleration besides, and six labels: walking, walking
upstairs and downstairs, sitting, standing, lying. There `hard` and `informative` are unknown.
"""
from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import Data

STEPS, RATE, SHORTEST, BURST = 128, 50, 32, 4
LOST, SHIFT, NOISE, SPREAD = 64, 90.0, 0.5, 0.25
SIZES = {"train": 8000, "validation": 1000, "test": 2000}
STARTS = {"train": 0, "validation": 40, "test": 48}                  # of the wearers
WEARERS = 60
CHANNELS = tuple(f"{what} {axis}" for what in ("acceleration", "turning rate") for axis in "xyz")
RAMP, SHARP = 4, 8.0                                                 # steps to start and stop; of an impact


class Activity(NamedTuple):
    """A movement: x is forward, y to the left, z up; sway, roll and yaw take two steps (left, right) for a cycle.

    cadence: steps per second. bounce, double, impact: of z, once and twice a step, and a thump. surge: of x. sway: of
    y. pitch, roll, yaw: turning rates about y, x, z. lean: how far the trunk would lean forward in a whole window, in
    radians; in a shorter part it leans less, at the same speed, and is upright again at its end.
    """
    cadence: float
    bounce: float = 0.0
    double: float = 0.0
    impact: float = 0.0
    surge: float = 0.0
    sway: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    yaw: float = 0.0
    lean: float = 0.0


ACTIVITIES = {
    "walk": Activity(1.8, 0.20, 0.10, 0.25, 0.12, 0.10, 0.5, 0.5, 0.6),
    "run": Activity(2.7, 0.70, 0.20, 0.80, 0.35, 0.25, 1.2, 0.9, 1.1, 0.2),
    "upstairs": Activity(1.4, 0.24, 0.06, 0.10, 0.16, 0.14, 0.8, 0.6, 0.4, 0.5),
    "downstairs": Activity(2.0, 0.24, 0.16, 0.60, 0.10, 0.12, 0.6, 0.4, 0.4, -0.2),
    "cycle": Activity(1.2, 0.08, 0.04, 0.00, 0.08, 0.06, 0.9, 0.3, 0.2, 0.9),
    "jump": Activity(1.8, 0.90, 0.30, 1.30, 0.08, 0.04, 0.3, 0.1, 0.1),
    "sit": Activity(0.0, lean=-0.9),
    "bend": Activity(0.0, lean=1.4),
}


class Wearers(NamedTuple):
    """People, first axis: pace and strength [P], form [P, activities, 8], phase [P, activities, 5], turn [P, 3]."""
    pace: Tensor
    strength: Tensor
    form: Tensor
    phase: Tensor
    turn: Tensor


@lru_cache(maxsize=1)
def _wearers() -> Wearers:
    """All people, drawn once: no seed changes them."""
    random = torch.Generator().manual_seed(60)

    def between(low, high, *shape):
        return low + (high - low) * torch.rand(WEARERS, *shape, generator=random)

    return Wearers(between(0.88, 1.12), between(0.75, 1.3), between(0.75, 1.25, len(ACTIVITIES), 8),
                   between(-0.6, 0.6, len(ACTIVITIES), 5), between(-0.2, 0.2, 3))


def sources(split: str) -> Tensor:
    """The wearers of a split, as indices: no two splits share one."""
    ends = [*list(STARTS.values())[1:], WEARERS]
    return torch.arange(STARTS[split], ends[list(STARTS).index(split)])


def load(split: str, size: int | None, seed: int) -> Data:
    """Inputs [N, 128, 6] in g and rad/s, targets [N]."""
    count = SIZES[split] if size is None else size
    random = torch.Generator().manual_seed(3 * seed + list(STARTS).index(split))
    pool = sources(split)

    def uniform(*shape):
        return torch.rand(*shape, generator=random)

    latent = uniform(count, 1)
    level = (latent + SPREAD * (2 * uniform(count, 4) - 1)).clamp(0, 1)
    active = STEPS - (level[:, 0] * (STEPS - SHORTEST)).round()
    bursts = (level[:, 1] * LOST / BURST).round()
    shift, noise = level[:, 2] * SHIFT, level[:, 3] * NOISE
    target = torch.randint(len(ACTIVITIES), (count,), generator=random)
    who = pool[torch.randint(len(pool), (count,), generator=random)]
    start = (uniform(count) * (STEPS - active + 1)).floor()

    signal = _idle(uniform(count, 6, 3)) + _performed(target, who, start, active, uniform(count, 2))
    people = _wearers()
    axis = torch.randn(count, 3, generator=random)
    axis = axis / axis.norm(dim=1, keepdim=True)
    turned = _rotations(people.turn[who]) @ _rotations(axis * shift.deg2rad().unsqueeze(1))
    signal = (signal.unflatten(2, (2, 3)) @ turned.unsqueeze(1)).flatten(2)
    signal += noise.view(-1, 1, 1) * torch.randn(signal.shape, generator=random)

    first = uniform(count, STEPS // BURST)                                   # the smallest are lost first
    first.scatter_(1, ((start + active / 2) / BURST).floor().long().unsqueeze(1), 2.0)
    arrived = (first.argsort(1).argsort(1) >= bursts.unsqueeze(1)).repeat_interleave(BURST, 1)
    signal *= arrived.unsqueeze(2)
    hard = ((STEPS - active) / (STEPS - SHORTEST) + bursts * BURST / LOST + shift / SHIFT + noise / NOISE) / 4
    return Data("sensor-activity", split, (signal,), target, hard.clamp(0, 1),
                {"active": active, "lost": bursts * BURST, "shift": shift, "noise": noise}, labels=tuple(ACTIVITIES),
                informative=(_within(start, active)[0] & arrived).float(), kind="signal")


def _within(start: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """Which steps [N, T] are in the active part, and how far into it they are, in (0, 1) there."""
    into = (torch.arange(STEPS) + 0.5 - start.unsqueeze(1)) / active.unsqueeze(1)
    return (into > 0) & (into < 1), into


def _idle(turns: Tensor) -> Tensor:
    """Standing still [N, T, 6]: each channel sways slowly and slightly (`turns` [N, 6, 3] says how), gravity on z."""
    seconds = torch.arange(STEPS) / RATE
    wave = torch.sin(2 * math.pi * ((0.2 + 0.4 * turns[..., :1]) * seconds + turns[..., 1:2]))
    signal = (0.03 * turns[..., 2:] * wave).transpose(1, 2)
    signal[:, :, 2] += 1
    return signal


def _performed(target: Tensor, who: Tensor, start: Tensor, active: Tensor, turns: Tensor) -> Tensor:
    """What the activity adds to standing still [N, T, 6], 0 outside of its part. turns: [N, 2], pace and phase."""
    people, table = _wearers(), torch.tensor(list(ACTIVITIES.values()))[target]
    inside, into = _within(start, active)
    cadence = table[:, 0] * people.pace[who] * (0.95 + 0.1 * turns[:, 0])
    parts = table[:, 1:9] * people.form[who, target] * people.strength[who].unsqueeze(1)
    bounce, double, impact, surge, sway, pitch, roll, yaw = parts.unsqueeze(2).unbind(1)       # [N, 1] each
    p = people.phase[who, target].unsqueeze(2)                                                # [N, 5, 1]
    edge = torch.minimum(into, 1 - into)                                     # 0 at both ends, 1/2 in the middle
    on = (edge * active.unsqueeze(1) / RAMP).clamp(0, 1)
    step = 2 * math.pi * (cadence.unsqueeze(1) * torch.arange(STEPS) / RATE + 2 * turns[:, 1:])
    thump = torch.exp(SHARP * (torch.cos(step) - 1)) - 0.143                 # less its mean over a step

    third = (3 * edge).clamp(0, 1)                                           # lean for a third, stay, rise for a third
    whole = (table[:, 9] * active / STEPS).unsqueeze(1)
    lean = whole * third.square() * (3 - 2 * third)
    speed = whole * 6 * third * (1 - third) * 3 / active.unsqueeze(1) * RATE * torch.sign(0.5 - into)
    found = torch.stack([
        on * surge * torch.sin(step + p[:, 0]) - torch.sin(lean),
        on * sway * torch.cos(step / 2 + p[:, 1]),
        on * (bounce * torch.cos(step) + double * torch.cos(2 * step + p[:, 2]) + impact * thump) + torch.cos(lean) - 1,
        on * roll * torch.sin(step / 2 + p[:, 1]),
        on * pitch * torch.cos(step + p[:, 3]) + speed,
        on * yaw * torch.cos(step / 2 + p[:, 4])], 2)
    return found * inside.unsqueeze(2)


def _rotations(vectors: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] about `vectors` [N, 3] by their length in radians (Rodrigues' formula)."""
    angle = vectors.norm(dim=1).clamp_min(1e-9).view(-1, 1, 1)
    x, y, z = (vectors / angle.squeeze(2)).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross
