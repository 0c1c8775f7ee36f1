"""The sensor task: seeded, no wearer in two splits, informative where it says it is, and hard where it says it is."""
import math

import pytest
import torch
import torch.nn.functional as F

from dynnotes import data
from dynnotes.data import sensor_activity as sensor
from dynnotes.data.sensor_activity import ACTIVITIES, BURST, LOST, NOISE, RATE, SHIFT, SHORTEST, STEPS, Activity


def test_the_same_seed_gives_the_same_windows_and_another_seed_others():
    one, again, other = (data.load("sensor-activity", "test", 50, seed) for seed in (3, 3, 4))
    assert torch.equal(one.inputs[0], again.inputs[0])
    assert torch.equal(one.target, again.target)
    assert not torch.equal(one.inputs[0], other.inputs[0])


@pytest.mark.parametrize("split", data.SPLITS)
def test_every_wearer_is_of_one_split_and_no_other_one_is_used(split, monkeypatch):
    pools = [set(sensor.sources(s).tolist()) for s in data.SPLITS]
    assert sum(map(len, pools)) == len(set().union(*pools)) == sensor.WEARERS
    mine = torch.zeros(sensor.WEARERS, dtype=torch.bool)
    mine[sensor.sources(split)] = True
    poisoned = sensor.Wearers(*(torch.where(mine.view(-1, *[1] * (part.dim() - 1)), part, float("nan"))
                                for part in sensor._wearers()))
    monkeypatch.setattr(sensor, "_wearers", lambda: poisoned)
    assert data.load("sensor-activity", split, 300).inputs[0].isfinite().all()


def test_no_two_wearers_are_alike():
    for part in sensor._wearers():
        assert len(part.unique(dim=0)) == sensor.WEARERS


def test_shapes_ranges_and_the_formula_of_hard():
    found = data.load("sensor-activity", "test")
    d = found.difficulty
    assert len(found) == sensor.SIZES["test"]
    assert found.inputs[0].shape == (len(found), STEPS, len(sensor.CHANNELS)) == (2000, 128, 6)
    assert found.kind == "signal"
    assert set(found.target.tolist()) == set(range(len(ACTIVITIES)))
    by_hand = ((128 - d["active"]) / 96 + d["lost"] / 64 + d["shift"] / 90 + d["noise"] / 0.5) / 4
    torch.testing.assert_close(found.hard, by_hand, rtol=0, atol=1e-6)
    assert found.hard.min() < 0.05
    assert found.hard.max() > 0.95
    for name, low, high in (("active", SHORTEST, STEPS), ("lost", 0, LOST), ("shift", 0, SHIFT), ("noise", 0, NOISE)):
        assert d[name].min() == low
        assert d[name].max() == pytest.approx(high)
        assert torch.corrcoef(torch.stack([d[name], found.hard]))[0, 1].abs() > 0.85, "the four go together"


def test_lost_steps_read_nothing_come_in_bursts_and_spare_the_middle():
    found = data.load("sensor-activity", "train", 2000)
    lost = (found.inputs[0] == 0).all(2)
    assert torch.equal(lost.sum(1).float(), found.difficulty["lost"])
    bursts = lost.unflatten(1, (-1, BURST))
    assert torch.equal(bursts.all(2), bursts.any(2))
    assert not (found.informative.bool() & lost).any()
    assert found.informative.sum(1).min() >= 1
    share = lost.double().mean(0)
    assert (share[:16] - share[-16:]).abs().max() < 0.06, "whatever the time"


def test_only_informative_steps_depend_on_what_is_performed(monkeypatch):
    """The same draws with other movements: all steps but the informative ones stay, and each of those changes."""
    plain = data.load("sensor-activity", "test", 400, seed=1)
    turned = dict(zip(ACTIVITIES, [*list(ACTIVITIES.values())[1:], ACTIVITIES["walk"]], strict=True))
    monkeypatch.setattr(sensor, "ACTIVITIES", turned)
    other = data.load("sensor-activity", "test", 400, seed=1)
    assert torch.equal(plain.target, other.target)
    changed = (plain.inputs[0] != other.inputs[0]).any(2)
    assert torch.equal(changed, plain.informative.bool())
    whole = plain.difficulty["lost"] == 0
    steps = plain.informative[whole].sum(1)
    assert torch.equal(steps, plain.difficulty["active"][whole]), "as many as are performed, where none is lost"
    first = plain.informative[whole].argmax(1)
    inside = (torch.arange(STEPS) >= first[:, None]) & (torch.arange(STEPS) < (first + steps)[:, None])
    assert torch.equal(inside.float(), plain.informative[whole]), "in one piece"


def alone(activity, monkeypatch, steps=STEPS):
    """What one movement adds to standing still [T, 6], by a wearer without peculiarities, from the first step on."""
    monkeypatch.setattr(sensor, "ACTIVITIES", {"it": activity})
    people = sensor.Wearers(torch.ones(1), torch.ones(1), torch.ones(1, 1, 8), torch.zeros(1, 1, 5), torch.zeros(1, 3))
    monkeypatch.setattr(sensor, "_wearers", lambda: people)
    zero = torch.zeros(1, dtype=torch.long)
    return sensor._performed(zero, zero, torch.zeros(1), torch.tensor([float(steps)]), torch.tensor([[0.5, 0.0]]))[0]


def test_a_cadence_by_hand(monkeypatch):
    """2 steps a second at 50 Hz: 25 samples a step. Sway takes two steps."""
    found = alone(Activity(2.0, bounce=0.5, sway=0.25, roll=0.75), monkeypatch)
    t = torch.arange(8, 120)                                                 # past the start, before the stop
    torch.testing.assert_close(found[t, 2], 0.5 * torch.cos(2 * math.pi * t / 25), rtol=0, atol=1e-4)
    torch.testing.assert_close(found[t, 1], 0.25 * torch.cos(2 * math.pi * t / 50), rtol=0, atol=1e-4)
    torch.testing.assert_close(found[t, 3], 0.75 * torch.sin(2 * math.pi * t / 50), rtol=0, atol=1e-4)
    assert (found[:, [0, 4, 5]] == 0).all()


def test_impacts_are_thumps_once_a_step_and_nothing_on_the_whole(monkeypatch):
    found = alone(Activity(2.0, impact=1.0), monkeypatch)[:, 2]
    assert [t for t in range(10, 120) if found[t] > 0.8] == [25, 50, 75, 100]
    assert found[25:100].mean().abs() < 1e-3


def test_a_lean_turns_gravity_and_the_gyroscope_sums_to_it(monkeypatch):
    lean = 0.6
    found = alone(Activity(0.0, lean=lean), monkeypatch)
    middle = STEPS // 2
    torch.testing.assert_close(found[middle, :3], torch.tensor([-math.sin(lean), 0, math.cos(lean) - 1]))
    angle = found[:, 4].cumsum(0) / RATE
    assert abs(angle[middle] - lean) < 0.01
    assert abs(angle[-1]) < 1e-4, "upright again at the end"
    size = (found[:, :3] + torch.tensor([0, 0, 1.0])).norm(dim=1)
    torch.testing.assert_close(size, torch.ones(STEPS))                      # gravity is 1 g whatever the lean
    short = alone(Activity(0.0, lean=lean), monkeypatch, steps=64)
    torch.testing.assert_close(short[:64, 4].abs().max(), found[:, 4].abs().max(), rtol=0.05, atol=0)
    torch.testing.assert_close(short[32, 0], torch.tensor(-math.sin(lean / 2)))


def test_rotations_by_hand():
    """A quarter turn about z takes x to y."""
    quarter = sensor._rotations(torch.tensor([[0, 0, math.pi / 2], [0, 0, 0]]))
    torch.testing.assert_close(quarter[0] @ torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(quarter[1], torch.eye(3))


def test_at_rest_the_sensor_reads_gravity_turned_by_its_shift(monkeypatch):
    """Without noise and with belts worn straight: the angle between gravity and z is at most the shift."""
    monkeypatch.setattr(sensor, "NOISE", 1e-9)
    people = sensor._wearers()
    monkeypatch.setattr(sensor, "_wearers", lambda: people._replace(turn=torch.zeros_like(people.turn)))
    found = data.load("sensor-activity", "test", 1000, seed=2)
    idle = (found.informative == 0) & (found.inputs[0] != 0).any(2)
    rests = idle.sum(1) > 20
    mean = (found.inputs[0][..., :3] * idle.unsqueeze(2)).sum(1) / idle.sum(1, keepdim=True).clamp_min(1)
    mean, shift = mean[rests], found.difficulty["shift"][rests]
    assert (mean.norm(dim=1) - 1).abs().max() < 0.05
    tilt = torch.atan2(mean[:, :2].norm(dim=1), mean[:, 2]).rad2deg()
    assert (tilt < shift + 3).all()
    assert torch.corrcoef(torch.stack([tilt, shift]))[0, 1] > 0.7


def test_without_its_informative_steps_a_window_cannot_be_told():
    """A nearest neighbour, by the spectra of what stays: as bad as guessing, 1 in 8; with these steps much better."""
    known, asked = data.load("sensor-activity", "train", 3000), data.load("sensor-activity", "test", 1000)

    def right(keep):
        def seen(found):
            kept = found.inputs[0] * keep(found.informative).unsqueeze(2)
            return torch.fft.rfft(kept, dim=1)[:, 1:20].abs().flatten(1)
        return (known.target[torch.cdist(seen(asked), seen(known)).argmin(1)] == asked.target).double().mean()

    assert right(lambda informative: 1 - informative) < 0.18
    assert right(lambda informative: informative) > 0.4


def test_a_small_static_net_errs_more_on_hard_windows():
    from dynnotes.nets.signals import SignalNet

    torch.manual_seed(0)
    known, asked = data.load("sensor-activity", "train", 4000), data.load("sensor-activity", "test", 1500)
    net = SignalNet(2, channels=6, classes=8, widths=(16, 32, 64))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    for _ in range(3):
        for (x,), target in known.batches(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x), target).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        wrong = (net(*asked.inputs).argmax(1) != asked.target).double()
    easy, middle, hard = (wrong[third].mean() for third in asked.hard.argsort().tensor_split(3))
    assert easy < 0.15
    assert easy + 0.05 < middle < hard - 0.1
