# SPDX-License-Identifier: MIT
from collections import Counter

import pytest

from aulos_train import compose as c
from aulos_train.captions import STYLE_WORDS, caption


def test_a_seed_is_a_score_for_ever():
    assert c.compose(7) == c.compose(7)
    assert c.compose(7).notes != c.compose(8).notes


def test_a_longer_clip_begins_with_the_shorter_one():
    for seed in range(20):
        short, long = c.compose(seed, 5), c.compose(seed, 10)
        assert [n[:4] for n in short.notes] == [n[:4] for n in long.notes if n[0] < 5]


def test_labels_cover_everything():
    labels = [c.compose(seed, 0.1).labels for seed in range(3000)]
    for name, values in (("instrument", c.NAMES), ("key", c.KEYS), ("mode", c.MODES), ("texture", c.TEXTURES), ("band", c.BANDS),
                         ("drums", [None, *c.DRUMS]), ("pad", [None, *c.PADS]), ("bass", [None, *c.BASSES]), ("dynamics", c.DYNAMICS)):
        assert {label[name] for label in labels} == set(values)
    assert len(c.NAMES) >= 12
    assert len({label["bpm"] for label in labels}) == 12


def test_tens_of_thousands_of_distinct_clips():
    scores = {tuple(n[:4] for n in c.compose(seed, 4).notes) + (c.compose(seed, 4).labels["instrument"],) for seed in range(2000)}
    assert len(scores) > 1990


@pytest.mark.parametrize("seed", range(30))
def test_notes_stand_on_codec_frames(seed):
    score = c.compose(seed)
    eighth = score.labels["eighth_frames"] / c.FRAMES_PER_SECOND
    starts = {n[0] for n in score.notes}
    assert 0.0 in starts
    assert all(abs(2 * s / eighth - round(2 * s / eighth)) < 1e-6 for s in starts), "a note off the grid of sixteenths"
    assert all(0 <= n[3] < 128 and 20 <= n[4] < 128 and n[1] > 0 for n in score.notes)


@pytest.mark.parametrize("mode,third", [("major", 4), ("minor", 3)])
def test_a_melody_states_the_third_of_its_key(mode, third):
    seen = Counter()
    for seed in range(300):
        score = c.compose(seed, 10)
        if score.labels["texture"] == "melody" and score.labels["mode"] == mode:
            root = c.KEYS[score.labels["key"]]
            first = next(n for n in score.notes if n[2] == c.LEAD)
            seen[(first[3] - root) % 12] += 1
    assert seen and set(seen) == {third}


def test_the_lead_stays_in_its_range():
    for seed in range(200):
        score = c.compose(seed)
        low, high = c.INSTRUMENTS[score.labels["instrument"]][1]
        for note in score.notes:
            if note[2] == c.LEAD:
                assert low - 12 <= note[3] <= high + 16


def test_captions_name_instrument_and_texture_and_tell_no_lies():
    for seed in range(500):
        labels = c.compose(seed, 0.1).labels
        text = caption(labels, seed)
        assert text == caption(labels, seed)
        said = text.lower()
        for name in c.MODES:
            assert name not in said or name == labels["mode"]
        for part in ("drums", "bass", "pad"):
            assert labels[part] is not None or part not in said
        digits = [int(w) for w in said.replace(",", " ").replace(".", " ").split() if w.isdigit()]
        assert all(abs(d / labels["bpm"] - 1) < 0.04 for d in digits)


def test_a_style_is_always_named():
    for style, words in STYLE_WORDS.items():
        for seed in range(100):
            text = caption(c.compose(seed, 0.1).labels, seed, style)
            assert any(word in text.lower() for word in (w.lower() for w in words))
