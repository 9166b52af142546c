# SPDX-License-Identifier: MIT
import numpy as np

from aulos_train import chiptune, lofi, measures
from aulos_train.compose import compose
from aulos_train.render import set_level

RATE = 24000


def tone(hz, seconds=4.0):
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)


def clicks(bpm, seconds=10.0):
    x = np.zeros(int(seconds * RATE))
    for at in np.arange(0, seconds, 60 / bpm):
        start = int(at * RATE)
        n = min(2400, len(x) - start)
        x[start:start + n] += np.random.default_rng(1).standard_normal(n) * np.exp(-np.arange(n) / 400)
    return x


def test_lofi_keeps_the_tone_and_loses_the_top():
    old = tone(440) + tone(6000)
    new = lofi.lofi(old.astype(np.float32), RATE, seed=3)
    assert len(new) == len(old) and new.dtype == np.float32
    power = np.abs(np.fft.rfft(new)) ** 2
    f = np.fft.rfftfreq(len(new), 1 / RATE)
    low, high = power[(f > 430) & (f < 450)].sum(), power[(f > 5900) & (f < 6100)].sum()
    assert low > 1000 * high, "6 kHz should be 30 dB below 440 Hz"


def test_lofi_is_made_of_its_seed():
    x = tone(440).astype(np.float32)
    assert np.array_equal(lofi.lofi(x, RATE, 3), lofi.lofi(x, RATE, 3))
    assert not np.array_equal(lofi.lofi(x, RATE, 3), lofi.lofi(x, RATE, 4))


def test_wow_bends_the_pitch_a_little():
    bent = lofi.wow(tone(440), RATE, np.random.default_rng(0))
    phase = np.unwrap(np.angle(np.fft.ifft(np.fft.fft(bent) * (np.fft.fftfreq(len(bent)) > 0) * 2)))
    hz = np.diff(phase[2000:-2000]) * RATE / 2 / np.pi
    smooth = np.convolve(hz, np.ones(480) / 480, "valid")
    assert 0.5 < smooth.max() - smooth.min() < 10


def test_swing_delays_off_beats_and_keeps_ends():
    score = compose(5)
    swung = lofi.swing(score)
    eighth = 30.0 / score.labels["bpm"]
    by_end = {(round(n[0] + n[1], 4), n[2], n[3]): n for n in swung.notes}
    moved = 0
    for note in score.notes:
        other = by_end.get((round(note[0] + note[1], 4), note[2], note[3]))
        if other is not None and other[0] > note[0]:
            moved += 1
            assert abs(other[0] - note[0] - 0.3 * eighth) < 1e-6
    assert moved > 0


def test_chiptune_sounds_where_the_notes_are():
    score = compose(11, 4)
    x = chiptune.render(score, 4, RATE)
    assert len(x) == 4 * RATE and np.isfinite(x).all()
    assert np.array_equal(x, chiptune.render(score, 4, RATE))
    first = int(min(n[0] for n in score.notes) * RATE)
    assert np.abs(x[first:first + 2400]).max() > 0.01


def test_level_is_set_and_dc_is_gone():
    x = set_level((tone(440) + 0.2).astype(np.float32), "medium")
    assert abs(measures.level_db(x) + 23) < 0.6
    assert abs(x[RATE:].mean()) < 1e-3
    assert np.abs(set_level(np.eye(1, RATE)[0].astype(np.float32), "loud")).max() <= 0.8901


def test_tempo_of_clicks():
    for bpm in (75, 100, 125, 150):
        assert measures.same_tempo(measures.tempo(clicks(bpm)), bpm)
    assert not measures.same_tempo(100, 140)
    assert measures.same_tempo(200, 100) and measures.same_tempo(93, 100) and not measures.same_tempo(91, 100)


def test_mode_of_chords():
    for mode, keys in (("major", (60, 64, 67, 72)), ("minor", (60, 63, 67, 72))):
        x = sum(tone(440 * 2 ** ((k - 69) / 12)) for k in keys)
        assert measures.key_and_mode(x) == (0, mode)


def test_defects():
    rng = np.random.default_rng(0)
    music = set_level(chiptune.render(compose(11), 10, RATE), "medium")
    assert measures.defects(music) == []
    assert measures.defects(np.zeros(5 * RATE)) == ["silent"]
    gap = music.copy()
    gap[3 * RATE:5 * RATE] = 0
    assert measures.defects(gap) == ["drop-out"]
    assert "stuck" in measures.defects(tone(440, 10) + 1e-4 * rng.standard_normal(10 * RATE))
    assert "clipped" in measures.defects(np.sign(music))
