"""Synthetic ECG: the model against its differential equations, the leads, what tells the rhythms, people apart."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from mmjax.core.errors import UserError
from mmjax.data.datasets import ecg
from mmjax.data.datasets import ecg_model as model
from mmjax.data.targets import classes_of

TIME = np.arange(1000) / 100


def find(name: str, patient: int = 0) -> dict:
    """Returns a recording of a rhythm."""
    numbers = (n for n in range(8 * patient, 8 * patient + 14) if n % 7 == ecg.RHYTHMS.index(name))
    number = next(numbers)
    return ecg.simulate(number // 8, number % 8)


def test_the_waves_solve_the_equations_of_the_model():
    rate = 60.0  # angles and widths as published
    omega = 2 * np.pi * rate / 60

    def slope(t, state):
        theta = np.mod(omega * t + np.pi, 2 * np.pi) - np.pi
        away = np.mod(theta - model.ANGLES + np.pi, 2 * np.pi) - np.pi
        pull = omega / model.WIDTHS**2 * away * np.exp(-(away**2) / (2 * model.WIDTHS**2))
        return -pull @ model.DIPOLE

    found = model.dipole(model.Beats(np.arange(-3.0, 6.0), rate), TIME[:300], model.DIPOLE)
    solved = solve_ivp(slope, (0, 2.99), found[0], t_eval=TIME[:300], rtol=1e-7, atol=1e-9, max_step=0.01)
    np.testing.assert_allclose(found, solved.y.T, atol=1e-4)
    assert found[:100, 0].argmax() == 0 and found[100, 0] > 0.9  # R peaks at whole seconds


def test_leads_obey_einthoven_and_goldberger():
    signals = dict(zip(model.LEADS, model.lead_matrix() @ np.random.default_rng(0).normal(size=(3, 50)), strict=True))
    np.testing.assert_allclose(signals["I"] + signals["III"], signals["II"])
    np.testing.assert_allclose(signals["aVR"] + signals["aVL"] + signals["aVF"], 0, atol=1e-12)
    np.testing.assert_allclose(signals["aVF"], (signals["II"] + signals["III"]) / 2)


def test_intervals_have_their_mean_spread_and_two_bands():
    found = model.intervals(100, 1.0, 0.05, np.random.default_rng(0))
    assert found.mean() == pytest.approx(1.0, abs=0.01) and found.std() == pytest.approx(0.05, rel=0.2)
    power = np.abs(np.fft.rfft(found - found.mean())) ** 2  # 0.01 Hz a bin
    assert power[[8, 9, 10, 11, 12, 22, 23, 24, 25, 26, 27, 28]].sum() > 0.9 * power.sum()


@pytest.mark.parametrize("name", ecg.RHYTHMS)
def test_rhythms_are_what_their_names_say(name):
    rng = np.random.default_rng(3)
    found = [ecg.rhythm(name, TIME, rng) for _ in range(30)]
    gaps = [np.diff(beats.peaks[:20]) for beats, _ in found]
    rates = np.array([60 / gap.mean() for gap in gaps])
    uneven = np.array([np.abs(np.diff(gap)).mean() / gap.mean() for gap in gaps])
    low, high = {"sinus bradycardia": (36, 58), "sinus tachycardia": (102, 156)}.get(name, (55, 170))
    assert (rates > low).all() and (rates < high).all()
    irregular = name in ("atrial fibrillation", "ventricular bigeminy")
    assert (uneven > 0.1).all() if irregular else (uneven < 0.1).all()
    no_p = [beats.atrial is not None and np.isnan(beats.atrial) for beats, _ in found]
    assert all(no_p) if name in ("atrial fibrillation", "atrial flutter") else not any(no_p)
    assert all((np.ptp(atria) > 0.05) == own for (_, atria), own in zip(found, no_p, strict=True))
    delays = [beats.atrial for beats, _ in found]
    if name == "first-degree AV block":
        assert min(delays) >= 0.24 and len(set(delays)) == 30
    assert all((beats.ventricular is not None) == (name == "ventricular bigeminy") for beats, _ in found)


def test_in_bigeminy_every_other_beat_is_early_and_a_pause_follows():
    rng = np.random.default_rng(3)
    for _ in range(30):
        beats, _ = ecg.rhythm("ventricular bigeminy", TIME, rng)
        gaps = np.diff(beats.peaks)
        own = np.flatnonzero(beats.ventricular[1:-1]) + 1
        assert (np.diff(own) == 2).all() and len(own) == 29
        before, after = gaps[own - 1], gaps[own]
        assert before.mean() < 0.7 * gaps.mean() and after.mean() > 1.3 * gaps.mean() and (before < after).all()
        assert before.mean() + after.mean() == pytest.approx(2 * 60 / beats.rate, rel=0.05)  # the pause makes up for it


def test_a_late_p_wave_is_late():
    quick = model.Beats(np.arange(-3.0, 12.0), 60.0, atrial=0.16)
    late = model.Beats(np.arange(-3.0, 12.0), 60.0, atrial=0.30)
    none = model.Beats(np.arange(-3.0, 12.0), 60.0, atrial=np.nan)
    without = model.dipole(none, TIME, model.DIPOLE)
    places = [np.abs(model.dipole(b, TIME, model.DIPOLE) - without)[50:100, 1].argmax() for b in (quick, late)]
    assert places == [34, 20]


def test_a_recording_is_the_same_every_time_and_of_millivolts():
    first, again = find("sinus rhythm"), find("sinus rhythm")
    np.testing.assert_array_equal(first["ecg"], again["ecg"])
    assert first["ecg"].shape == (1000, 12) and first["ecg"].dtype == np.float32 and np.isfinite(first["ecg"]).all()
    assert 0.3 < np.abs(first["ecg"]).max() < 4


def test_the_heart_rate_alone_is_not_enough():
    records = [ecg.simulate(patient, number) for patient in range(50) for number in range(8)]
    labels = np.array([record["label"] for record in records])
    rates = np.array([float(record["heart_rate"]) for record in records])
    assert (np.bincount(labels) >= 57).all()
    away = np.abs(rates[:, None] - rates) + np.where(np.eye(400, dtype=bool), np.inf, 0)
    votes = np.array([np.bincount(labels[row], minlength=7).argmax() for row in away.argsort(axis=1)[:, :9]])
    right = {name: (votes == labels)[labels == number].mean() for number, name in enumerate(ecg.RHYTHMS)}
    assert np.mean(votes == labels) < 0.6
    assert right["sinus bradycardia"] > 0.8
    for name in ("sinus rhythm", "first-degree AV block", "ventricular bigeminy", "atrial flutter"):
        assert right[name] < 0.65


def test_builds_and_keeps_people_apart(monkeypatch, tmp_path):
    monkeypatch.setattr(ecg, "PATIENTS", {"train": range(3), "test": range(3, 5)})
    train, test = (ecg.SyntheticEcgSource(split, data_dir=str(tmp_path)) for split in ("train", "test"))
    assert (len(train), len(test)) == (24, 16)
    people = [{int(source.read(i)["patient"]) for i in range(len(source))} for source in (train, test)]
    assert people == [{0, 1, 2}, {3, 4}]
    record = train.read(0)
    assert set(record) == set(train.columns) and record["ecg"].shape == (1000, 12)
    assert classes_of(train, "label") == list(ecg.RHYTHMS) and record["label"][0] in ecg.RHYTHMS
    assert train.label(3) == "synthetic_ecg:train[3]" and len(train.leads) == 12
    with pytest.raises(UserError, match="tset"):
        ecg.SyntheticEcgSource("tset", data_dir=str(tmp_path))


def test_the_published_split_has_nobody_twice():
    assert (len(ecg.PATIENTS["train"]) * 8, len(ecg.PATIENTS["test"]) * 8) == (1600, 400)
    assert not set(ecg.PATIENTS["train"]) & set(ecg.PATIENTS["test"])
