# SPDX-License-Identifier: MIT
"""The composer: a seed becomes a score (note events and labels) without any audio. Pure Python; the same seed, the same score.

Two habits make the music learnable by a small model. Every clip begins at the first beat of a bar, and an eighth note lasts a whole
number of codec frames (20 ms), so that equal onsets give equal tokens; that is why there are twelve tempi and not a hundred.
"""

import random
from dataclasses import dataclass, field

FRAMES_PER_SECOND = 50

# class: (General MIDI program, lowest and highest key of the lead part, does the tone last)
INSTRUMENTS = {
    "piano": (0, (52, 84), False),
    "music box": (10, (60, 84), False),
    "vibraphone": (11, (55, 82), False),
    "marimba": (12, (48, 79), False),
    "organ": (19, (48, 77), True),
    "acoustic guitar": (24, (45, 74), False),
    "violin": (40, (58, 86), True),
    "harp": (46, (50, 84), False),
    "trumpet": (56, (57, 80), True),
    "saxophone": (65, (52, 77), True),
    "flute": (73, (62, 88), True),
    "synth lead": (81, (52, 81), True),
}
NAMES = list(INSTRUMENTS)

EIGHTH_FRAMES = {"slow": (24, 22, 20, 18), "medium": (16, 15, 14, 13, 12), "fast": (11, 10, 9)}
BANDS = list(EIGHTH_FRAMES)
TEXTURES = ["melody", "arpeggio", "chords"]
DYNAMICS = {"soft": 58, "medium": 85, "loud": 110}  # base velocity
REGISTERS = ["low", "mid", "high"]
SPACES = ["dry", "reverb"]

KEYS = {"C": 0, "D": 2, "E flat": 3, "E": 4, "F": 5, "G": 7, "A": 9, "B flat": 10}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
MODES = list(SCALES)
PROGRESSIONS = {
    "major": [(0, 4, 5, 3), (0, 3, 4, 0), (0, 5, 3, 4), (0, 3, 0, 4), (0, 0, 3, 4)],
    "minor": [(0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 6), (0, 3, 5, 4), (0, 0, 3, 4)],
}
PADS = {"strings": 48, "choir": 52, "electric piano": 4}
BASSES = {"bass": 33, "upright bass": 32, "synth bass": 38}

# pattern: (key of the drum map, sixteenths of a bar at which it sounds, velocity)
DRUMS = {
    "rock": [(36, (0, 8, 10), 110), (38, (4, 12), 105), (42, range(0, 16, 2), 70)],
    "house": [(36, (0, 4, 8, 12), 115), (39, (4, 12), 90), (46, (2, 6, 10, 14), 75)],
    "hip hop": [(36, (0, 6, 10), 112), (38, (4, 12), 105), (42, range(0, 16, 2), 60)],
    "bossa": [(36, (0, 6, 8, 14), 85), (37, (0, 6, 12), 80), (42, range(0, 16, 2), 50)],
    "march": [(36, (0, 8), 105), (38, (4, 6, 12, 14), 90)],
    "waltz": [(36, (0,), 100), (42, (4, 8), 80), (38, (4, 8), 60)],
}
LEAD, PAD, BASS, DRUM = 0, 1, 2, 9  # channels


@dataclass
class Score:
    """Notes are (start s, duration s, channel, key, velocity); programs are {channel: General MIDI program}."""

    notes: list = field(default_factory=list)
    programs: dict = field(default_factory=dict)
    labels: dict = field(default_factory=dict)


def bpm_of(eighth_frames):
    return 30.0 * FRAMES_PER_SECOND / eighth_frames


def triad(degree, scale, root):
    return [root + scale[(degree + i) % 7] + 12 * ((degree + i) // 7) for i in (0, 2, 4)]


def within(key, low, high):
    """The key moved by octaves into [low, high]."""
    while key < low:
        key += 12
    while key > high:
        key -= 12
    return key


def choose_labels(r, instrument=None):
    """Everything a caption can speak of, drawn before a note is written."""
    band = r.choice(BANDS)
    waltz = r.random() < 0.1
    solo = r.random() < 0.45
    drums = None if solo or r.random() < 0.4 else "waltz" if waltz else r.choice([d for d in DRUMS if d != "waltz"])
    return {
        "instrument": instrument or r.choice(NAMES),
        "band": band,
        "eighth_frames": r.choice(EIGHTH_FRAMES[band]),
        "mode": r.choice(MODES),
        "key": r.choice(list(KEYS)),
        "texture": r.choice(["melody", "melody", "arpeggio", "arpeggio", "chords"]),
        "pad": None if solo or r.random() < 0.65 else r.choice(list(PADS)),
        "bass": None if solo or r.random() < 0.5 else r.choice(list(BASSES)),
        "drums": drums,
        "dynamics": r.choice(["soft", "medium", "medium", "loud"]),
        "space": r.choice(["dry", "dry", "dry", "reverb"]),
        "register": r.choice(["low", "mid", "mid", "high"]),
        "waltz": waltz,
    }


def lead_range(labels):
    low, high = INSTRUMENTS[labels["instrument"]][1]
    width = high - low
    if labels["register"] == "low":
        return low, low + int(width * 0.6)
    if labels["register"] == "high":
        return high - int(width * 0.6), high
    return low + int(width * 0.15), high - int(width * 0.15)


def rhythm(r, sixteenths, fast):
    """One bar of a melody: (start, length) in sixteenths, all on eighths."""
    bar, at = [], 0
    while at < sixteenths:
        length = min(r.choice((2, 4, 4, 8) if fast else (2, 2, 4, 4, 4, 6, 8)), sixteenths - at)
        bar.append((at, length))
        at += length
    return bar


def melody_bars(r, labels, progression, root, sixteenths):
    """Two rhythms take turns; strong beats sound the chord, its third more often than not, so that the mode can be heard."""
    scale = SCALES[labels["mode"]]
    low, high = lead_range(labels)
    rhythms = [rhythm(r, sixteenths, labels["band"] == "fast") for _ in range(2)]
    degree = r.choice((0, 2, 4))
    bar = 0
    while True:
        chord = triad(progression[bar % len(progression)], scale, root)
        for start, length in rhythms[bar % 2]:
            if start == 0:
                key = chord[1] if bar % 2 == 0 else r.choice((chord[0], chord[2]))
                degree = {0: 0, 1: 2, 2: 4}[chord.index(key)] + progression[bar % len(progression)]
            elif start % 8 == 0:
                key = r.choice((chord[0], chord[1], chord[1], chord[2]))
            else:
                degree = max(-3, min(10, degree + r.choice((-2, -1, -1, 1, 1, 2))))
                key = root + scale[degree % 7] + 12 * (degree // 7)
            yield bar, start, length * 0.92, within(key, low, high), 8
        bar += 1


def arpeggio_bars(r, labels, progression, root, sixteenths):
    low, high = lead_range(labels)
    last = 1.0 if INSTRUMENTS[labels["instrument"]][2] else 1.6
    step = 1 if labels["band"] == "slow" and r.random() < 0.4 else 2
    order = r.choice([(0, 1, 2, 1), (0, 1, 2, 3), (0, 2, 1, 2), (3, 2, 1, 0), (0, 1, 2, 3, 2, 1)])
    bar = 0
    while True:
        chord = sorted(within(k, low, max(low + 12, high - 6)) for k in triad(progression[bar % len(progression)], SCALES[labels["mode"]], root))
        chord.append(chord[0] + 12)
        for i, start in enumerate(range(0, sixteenths, step)):
            yield bar, start, step * last, chord[order[i % len(order)]], 8 if i == 0 else 0
        bar += 1


def chord_bars(r, labels, progression, root, sixteenths):
    low, high = lead_range(labels)
    starts = r.choice([(0,), (0, 4, 8)] if labels["waltz"] else [(0,), (0, 8), (0, 4, 8, 12), (0, 6, 8, 14)])
    bar = 0
    while True:
        chord = sorted(within(k, max(low, 48), max(low + 14, high - 8)) for k in triad(progression[bar % len(progression)], SCALES[labels["mode"]], root))
        for i, start in enumerate(starts):
            end = starts[i + 1] if i + 1 < len(starts) else sixteenths
            for key in chord:
                yield bar, start, (end - start) * 0.9, key, 0
        bar += 1


LEADS = {"melody": melody_bars, "arpeggio": arpeggio_bars, "chords": chord_bars}


def compose(seed, seconds=10.0, instrument=None):
    """The score of a seed; a longer one begins with the notes of a shorter one."""
    r = random.Random(seed)
    labels = {"seed": seed, **choose_labels(r, instrument)}
    bpm = bpm_of(labels["eighth_frames"])
    labels["bpm"] = round(bpm, 1)
    sixteenth = 15.0 / bpm
    sixteenths = 12 if labels["waltz"] else 16
    bars = int(seconds / (sixteenth * sixteenths)) + 1
    root = 48 + KEYS[labels["key"]]
    scale = SCALES[labels["mode"]]
    progression = r.choice(PROGRESSIONS[labels["mode"]])
    base = DYNAMICS[labels["dynamics"]]
    slow_bass = labels["band"] == "slow" or labels["waltz"]
    bass_starts = (0,) if slow_bass else r.choice([(0, 8), (0, 4, 8, 12)])
    lead, touch = random.Random(r.random()), random.Random(r.random())
    score = Score(programs={LEAD: INSTRUMENTS[labels["instrument"]][0]}, labels=labels)

    def add(bar, start, length, channel, key, velocity):
        begin = (bar * sixteenths + start) * sixteenth
        if begin < seconds:
            score.notes.append((begin, length * sixteenth, channel, key, max(20, min(127, int(velocity + touch.gauss(0, 4))))))

    for bar, start, length, key, accent in LEADS[labels["texture"]](lead, labels, progression, root, sixteenths):
        if bar >= bars:
            break
        add(bar, start, length, LEAD, key, base + accent)
    for bar in range(bars):
        chord = triad(progression[bar % len(progression)], scale, root)
        if labels["pad"]:
            for key in chord:
                add(bar, 0, sixteenths * 0.97, PAD, within(key, 48, 66), base - 22)
        if labels["bass"]:
            for start in bass_starts:
                add(bar, start, 8 if slow_bass else 3.8, BASS, within(chord[0], 33, 47), base + 3)
        if labels["drums"]:
            for key, starts, velocity in DRUMS[labels["drums"]]:
                for start in starts:
                    add(bar, start, 1, DRUM, key, velocity * base / 100)
    if labels["pad"]:
        score.programs[PAD] = PADS[labels["pad"]]
    if labels["bass"]:
        score.programs[BASS] = BASSES[labels["bass"]]
    score.notes.sort()
    return score
