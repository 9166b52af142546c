# SPDX-License-Identifier: MIT
"""Labels become captions: the instrument and the texture always, everything else now and then, in several orders and wordings."""

import random

INSTRUMENT_WORDS = {
    "piano": ("piano", "piano", "grand piano"),
    "acoustic guitar": ("acoustic guitar", "guitar"),
    "saxophone": ("saxophone", "saxophone", "sax"),
    "synth lead": ("synth lead", "synthesizer", "synth"),
    "organ": ("organ", "organ", "church organ"),
    "trumpet": ("trumpet", "trumpet", "brass trumpet"),
}
TEXTURE_WORDS = {
    "melody": ("melody", "melody", "tune", "lead line", "theme"),
    "arpeggio": ("arpeggio", "arpeggio", "arpeggios", "broken chords"),
    "chords": ("chords", "chords", "block chords", "chord progression"),
}
TEMPO_WORDS = {
    "slow": ("slow", "slow", "very slow", "relaxed"),
    "medium": ("mid-tempo", "moderate", "medium tempo"),
    "fast": ("fast", "fast", "quick", "lively"),
}
DYNAMIC_WORDS = {"soft": ("soft", "quiet", "delicate"), "medium": (), "loud": ("loud", "powerful", "strong")}
MOODS = {
    ("major", "slow"): ("calm", "peaceful", "gentle", "warm"),
    ("major", "medium"): ("happy", "bright", "cheerful", "sunny"),
    ("major", "fast"): ("energetic", "joyful", "upbeat", "playful"),
    ("minor", "slow"): ("sad", "melancholic", "lonely", "sombre"),
    ("minor", "medium"): ("dark", "moody", "serious", "mysterious"),
    ("minor", "fast"): ("tense", "dramatic", "urgent", "restless"),
}
SPACE_WORDS = {"reverb": ("with reverb", "spacious", "in a large hall", "with a long echo"), "dry": ("dry", "close and dry")}
STYLE_WORDS = {
    "chiptune": ("chiptune", "8-bit", "8-bit game music", "retro video game"),
    "lo-fi": ("lo-fi", "lofi", "old vinyl record", "dusty tape"),
}


def joined(parts):
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def accompaniment(labels, r):
    parts = []
    if labels["pad"] and r.random() < 0.85:
        parts.append(labels["pad"] + (" pad" if r.random() < 0.3 else ""))
    if labels["bass"] and r.random() < 0.85:
        parts.append(labels["bass"] + (" line" if r.random() < 0.2 else ""))
    if labels["drums"] and r.random() < 0.95:
        parts.append(labels["drums"] + r.choice((" drums", " drums", " beat")))
    if parts:
        return r.choice((" with ", " with ", " over ")) + joined(parts)
    if not (labels["pad"] or labels["bass"] or labels["drums"]) and r.random() < 0.4:
        return r.choice((", solo", ", no accompaniment", ", alone"))
    return ""


def head(labels, r):
    """The words about who plays what, in one of several forms."""
    words = []
    for choices, chance in ((TEMPO_WORDS[labels["band"]], 0.55), (MOODS[labels["mode"], labels["band"]], 0.5), (DYNAMIC_WORDS[labels["dynamics"]], 0.5)):
        if choices and r.random() < chance:
            words.append(r.choice(choices))
    r.shuffle(words)
    instrument = r.choice(INSTRUMENT_WORDS.get(labels["instrument"], (labels["instrument"],)))
    texture = r.choice(TEXTURE_WORDS[labels["texture"]])
    described = " ".join(words)
    form = r.random()
    if form < 0.55:
        text = " ".join([*words, instrument, texture])
        return ("a " if r.random() < 0.3 else "") + text
    if form < 0.75:
        return f"{instrument} playing {described + ' ' if described else 'a ' if texture in ('melody', 'tune', 'theme') else ''}{texture}"
    if form < 0.9:
        return f"{described + ' ' if described else ''}{texture} on {instrument}"
    return f"{instrument}, {described + ' ' if described else ''}{texture}"


def bpm_words(labels, r):
    """Half of the captions name the tempo to a unit, half round it as a person would (within 3 %)."""
    bpm = labels["bpm"] if r.random() < 0.5 else labels["bpm"] * r.uniform(0.97, 1.03)
    return r.choice(("{} bpm", "{} bpm", "at {} bpm", "tempo {}")).format(round(bpm))


def caption(labels, seed, style=None):
    """A caption of the labels; another seed words it otherwise. A style is always named."""
    r = random.Random(seed)
    text = head(labels, r) + accompaniment(labels, r)
    tail = []
    if r.random() < 0.55:
        tail.append(bpm_words(labels, r))
    if r.random() < 0.45:
        tail.append(r.choice(("in {} {}", "in {} {}", "{} {}")).format(labels["key"], labels["mode"]))
    elif r.random() < 0.45:
        tail.append(r.choice(("{} key", "in a {} key", "{} mode")).format(labels["mode"]))
    if r.random() < (0.7 if labels["space"] == "reverb" else 0.15):
        tail.append(r.choice(SPACE_WORDS[labels["space"]]))
    if labels["register"] != "mid" and r.random() < 0.4:
        tail.append(f"{labels['register']} register")
    if style and r.random() < 0.5:
        tail.append(r.choice(STYLE_WORDS.get(style, (style,))))
        style = None
    r.shuffle(tail)
    text = ", ".join([text, *tail])
    if style:
        text = r.choice(STYLE_WORDS.get(style, (style,))) + " " + text
    return text if r.random() < 0.6 else text[0].upper() + text[1:] + r.choice(("", "."))
