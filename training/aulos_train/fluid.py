# SPDX-License-Identifier: MIT
"""Scores through FluidSynth: libfluidsynth by ctypes, no MIDI file and no audio device. Debian: libfluidsynth3, fluid-soundfont-gm."""

import ctypes
import ctypes.util
from pathlib import Path

import numpy as np

from aulos_train.compose import BASS, DRUM, LEAD, PAD

SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
REVERB_SEND, LINEAR = 91, 1


class Fluid:
    """One synthesizer; a process needs one of its own. Every render starts from a reset, so the order of clips does not matter."""

    def __init__(self, rate, sound_font=SOUND_FONT):
        name = ctypes.util.find_library("fluidsynth")
        if not name or not Path(sound_font).exists():
            raise RuntimeError(f"libfluidsynth or {sound_font} is missing: apt-get install libfluidsynth3 fluid-soundfont-gm")
        self.rate = rate
        lib = self.lib = ctypes.CDLL(name)
        lib.new_fluid_settings.restype = lib.new_fluid_synth.restype = ctypes.c_void_p
        settings = ctypes.c_void_p(lib.new_fluid_settings())
        lib.fluid_settings_setnum(settings, b"synth.sample-rate", ctypes.c_double(rate))
        lib.fluid_settings_setnum(settings, b"synth.gain", ctypes.c_double(0.4))
        for key, value in ((b"synth.lock-memory", 0), (b"synth.chorus.active", 0), (b"synth.polyphony", 64)):
            lib.fluid_settings_setint(settings, key, value)
        self.synth = ctypes.c_void_p(lib.new_fluid_synth(settings))
        lib.fluid_synth_set_interp_method(self.synth, -1, LINEAR)
        if lib.fluid_synth_sfload(self.synth, str(sound_font).encode(), 1) < 0:
            raise RuntimeError(f"FluidSynth does not load {sound_font}")

    def prepare(self, score):
        lib, synth = self.lib, self.synth
        lib.fluid_synth_system_reset(synth)
        wet = score.labels["space"] == "reverb"
        lib.fluid_synth_set_reverb_on(synth, int(wet))
        if wet:
            lib.fluid_synth_set_reverb(synth, *map(ctypes.c_double, (0.8, 0.3, 0.7, 0.8)))
        for channel, program in score.programs.items():
            lib.fluid_synth_program_change(synth, channel, program)
        for channel in (LEAD, PAD, BASS, DRUM):
            lib.fluid_synth_cc(synth, channel, REVERB_SEND, 90 if wet else 0)

    def render(self, score, seconds):
        """Mono float32, no level set."""
        lib, synth, n = self.lib, self.synth, int(seconds * self.rate)
        self.prepare(score)
        events = []
        for start, duration, channel, key, velocity in score.notes:
            events.append((int(start * self.rate), 1, channel, key, velocity))
            events.append((int((start + duration) * self.rate), 0, channel, key, 0))
        events.sort()
        left, right = np.zeros(n, np.float32), np.zeros(n, np.float32)
        at_left, at_right = ctypes.c_void_p(left.ctypes.data), ctypes.c_void_p(right.ctypes.data)
        position = 0
        for at, on, channel, key, velocity in [*events, (n, 0, 0, 0, 0)]:
            at = min(at, n)
            if at > position:
                lib.fluid_synth_write_float(synth, at - position, at_left, position, 1, at_right, position, 1)
                position = at
            if position >= n:
                break
            if on:
                lib.fluid_synth_noteon(synth, channel, key, velocity)
            else:
                lib.fluid_synth_noteoff(synth, channel, key)
        return (left + right) * 0.5
