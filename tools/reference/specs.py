# SPDX-License-Identifier: MIT
"""What is made: the tables of checkpoints, cases, adapters and prompts."""

import dataclasses

SEED = 20261124
COLUMNS = [1, 2, 50]            # columns whose logits are kept; column 1 is the first one that is predicted
MIN_GAP = 1e-3                  # wanted top-1 to top-2 distance along a greedy path, in units of the row's std
FULL_AUDIO_LIMIT = 200_000      # samples per channel that are stored whole; longer clips are stored in windows


@dataclasses.dataclass
class Spec:
    """One tiny checkpoint. `layout`: "resaved" (what save_pretrained writes today), "published" (the names of the files
    on the Hub: weight_g/weight_v, embed_positions present, configs full of legacy fields) or "folded" (the weight norm
    multiplied out: conv.weight, as some conversions write it)."""
    name: str
    seed: int
    dtype: str = "float32"
    layout: str = "resaved"
    shards: int = 1
    pickle: bool = False                # pytorch_model.bin instead of model.safetensors
    tokenizer: str = "small"            # "small" and "tiny" (trained here) or "t5" (the real one)
    token_files: str = "both"           # spiece | json | both
    json_layout: str = "t5"             # t5 (as T5 shipped first) | resave (newer re-export)
    vocab: int = 128                    # codes per codebook
    position_rows: int = 0              # rows of embed_positions.weights to store (published layout)
    max_positions: int = 2048
    text: dict = dataclasses.field(default_factory=dict)
    decoder: dict = dataclasses.field(default_factory=dict)
    audio: dict = dataclasses.field(default_factory=dict)
    tail: float = 0.25                  # log-normal spread of the head rows (widens the greedy margins)


TEXT = dict(d_model=32, d_kv=12, num_heads=4, d_ff=64, num_layers=2)
AUDIO = dict(upsampling_ratios=[8, 5, 4, 4], sampling_rate=32000, num_filters=2, hidden_size=16)
DECODER = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, ffn_dim=192, num_codebooks=4,
               audio_channels=1)
STEREO = dict(num_codebooks=8, audio_channels=2)

# of the option checkpoints: everything as small as it goes, and a codec of two stages
TINY = dict(tokenizer="tiny", token_files="spiece", vocab=32, max_positions=128)
TINY_TEXT = dict(d_model=16, d_kv=8, num_heads=2, d_ff=24, num_layers=2)
TINY_AUDIO = dict(upsampling_ratios=[3, 2], sampling_rate=300, num_filters=4, hidden_size=8)
TINY_DECODER = dict(hidden_size=28, num_hidden_layers=1, num_attention_heads=2, ffn_dim=56, num_codebooks=4,
                    audio_channels=1)

SPECS = [
    Spec("mono-f32", 11, text=TEXT, decoder=DECODER, audio=AUDIO),
    Spec("mono-f32-published", 12, layout="published", position_rows=512, max_positions=512,
         token_files="both", json_layout="resave",
         text=dict(d_model=40, d_kv=8, num_heads=6, d_ff=56, num_layers=2),
         decoder=dict(DECODER, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, ffn_dim=128), audio=AUDIO),
    Spec("stereo-f16-sharded", 13, dtype="float16", layout="published", shards=3, position_rows=512, max_positions=512,
         tokenizer="tiny", token_files="spiece", vocab=64, text=TEXT, audio=AUDIO,
         decoder=dict(DECODER, num_attention_heads=2, num_hidden_layers=2, **STEREO)),
    Spec("mono-bf16-noproj", 34, dtype="bfloat16", tokenizer="tiny", token_files="json", json_layout="t5", max_positions=256,
         text=dict(d_model=48, d_kv=20, num_heads=3, d_ff=80, num_layers=2),
         decoder=dict(DECODER, num_attention_heads=3, ffn_dim=144, num_hidden_layers=2),
         audio=dict(AUDIO, upsampling_ratios=[5, 4, 2], sampling_rate=2000, num_filters=4, hidden_size=24)),
    Spec("mono-f16-t5vocab", 25, dtype="float16", tokenizer="t5", token_files="spiece", vocab=64,
         text=dict(d_model=12, d_kv=12, num_heads=2, d_ff=64, num_layers=2),
         decoder=dict(DECODER, hidden_size=40, num_attention_heads=5, ffn_dim=104, num_hidden_layers=2),
         audio=dict(AUDIO, upsampling_ratios=[2, 5, 3], sampling_rate=1640, num_filters=6, hidden_size=20)),
    Spec("mono-f32-bin", 16, pickle=True, layout="published", position_rows=64, max_positions=64, vocab=64,
         tokenizer="tiny", token_files="spiece", text=dict(TEXT, num_layers=1),
         decoder=dict(DECODER, hidden_size=32, num_attention_heads=2, ffn_dim=128, num_hidden_layers=1),
         audio=dict(AUDIO, upsampling_ratios=[4, 2], sampling_rate=400, num_filters=4, hidden_size=12)),

    # the options that no published checkpoint uses, a few at a time
    Spec("opts-gelu-new-head15", 21, **TINY, text=TINY_TEXT, audio=dict(TINY_AUDIO, num_lstm_layers=1),
         decoder=dict(TINY_DECODER, hidden_size=30, activation_function="gelu_new",
                      scale_embedding=True)),
    Spec("opts-relu-odd-width", 32, layout="published", position_rows=128, **TINY, text=TINY_TEXT, audio=TINY_AUDIO,
         decoder=dict(TINY_DECODER, hidden_size=27, num_attention_heads=3, ffn_dim=50, activation_function="relu",
                      tie_word_embeddings=True)),
    Spec("opts-gated-text-folded", 43, layout="folded", **TINY,
         text=dict(TINY_TEXT, d_model=20, feed_forward_proj="gated-gelu", relative_attention_num_buckets=16,
                   relative_attention_max_distance=24, layer_norm_epsilon=1e-4),
         decoder=TINY_DECODER,
         audio=dict(TINY_AUDIO, num_residual_layers=2, dilation_growth_rate=3, compress=4, num_lstm_layers=3,
                    residual_kernel_size=5, kernel_size=5, last_kernel_size=3)),
    Spec("opts-causal", 34, **TINY, text=TINY_TEXT, decoder=TINY_DECODER,
         audio=dict(TINY_AUDIO, upsampling_ratios=[4, 3], sampling_rate=600, use_causal_conv=True, trim_right_ratio=1.0,
                    use_conv_shortcut=True, num_residual_layers=3, dilation_growth_rate=3)),
    Spec("opts-causal-half-constant-stereo", 25, layout="published", **TINY, text=TINY_TEXT,
         decoder=dict(TINY_DECODER, **STEREO),
         audio=dict(TINY_AUDIO, upsampling_ratios=[5, 2], sampling_rate=500, use_causal_conv=True, trim_right_ratio=0.5,
                    pad_mode="constant", num_residual_layers=2, dilation_growth_rate=3, compress=1, num_lstm_layers=1)),
    Spec("opts-constant-shortcut-stereo-f16", 26, dtype="float16", layout="folded", **TINY, text=TINY_TEXT,
         decoder=dict(TINY_DECODER, **STEREO),
         audio=dict(TINY_AUDIO, upsampling_ratios=[3, 5], sampling_rate=450, pad_mode="constant", use_conv_shortcut=True,
                    num_residual_layers=2, dilation_growth_rate=2, compress=4, num_lstm_layers=2)),
]

# (case, settings). A prompt of None is searched for a wide margin; audio: full | windows.
CASES = {
    "mono-f32": [
        ("plain", dict(frames=300, audio="windows")), ("no-guidance", dict(frames=300, guidance=1.0, audio="windows")),
        ("empty", dict(prompt="", frames=60)),
        ("unicode", dict(prompt="Ｃａｆé del Mar — ﬁne “naïve” ½ ♫ 音楽 🎵", frames=60, audio="windows")),
        ("short", dict(frames=3, columns=[1, 2, 6])),
        ("middle", dict(frames=120, audio="windows")),          # as long as the adapter cases, for mixed-adapters
        ("batch", dict(batch=["jazz", "", "slow warm analog synth pads with a long tape delay and soft drums",
                              "deep house"], frames=60, audio="windows")),
    ],
    "mono-f32-published": [
        ("plain", dict(frames=300, audio="windows")),
        ("guidance-1.5", dict(frames=300, guidance=1.5, audio="windows")),
        ("no-guidance", dict(frames=300, guidance=1.0, audio="windows")),
    ],
    "stereo-f16-sharded": [
        ("plain", dict(frames=300, audio="windows")), ("no-guidance", dict(frames=300, guidance=1.0, audio="windows")),
        ("short", dict(frames=8, columns=[1, 2, 11])),
        ("batch", dict(batch=["fast techno", "a sad cello solo in a big church", ""], frames=60, audio="windows")),
    ],
    "mono-bf16-noproj": [
        ("plain", dict(frames=300)), ("no-guidance", dict(frames=300, guidance=1.0)),
        ("long", dict(frames=1500, columns=[1, 2, 50, 1000, 1503], min_gap=1e-4, audio="windows")),
    ],
    "mono-f16-t5vocab": [
        ("plain", dict(frames=300)), ("no-guidance", dict(frames=300, guidance=1.0)),
        ("unicode", dict(prompt="Müsik für Élise – “größer” ﬂute ② 電子音楽 👩\u200d🎤 {x}", frames=80)),
        ("long-prompt", dict(prompt="LONG", frames=80)),
    ],
    "mono-f32-bin": [("plain", dict(frames=300))],
    "opts-gelu-new-head15": [("plain", dict(frames=120)), ("no-guidance", dict(frames=60, guidance=1.0))],
    "opts-relu-odd-width": [("plain", dict(frames=120))],
    "opts-gated-text-folded": [("plain", dict(frames=120)), ("short", dict(frames=3, columns=[1, 2, 6])),
                               ("long-prompt", dict(prompt="MEDIUM", frames=60))],
    "opts-causal": [("plain", dict(frames=120)), ("short", dict(frames=3, columns=[1, 2, 6])),
                    ("batch", dict(batch=["a slow waltz", "", "loud guitars in a big hall"], frames=60))],
    "opts-causal-half-constant-stereo": [("plain", dict(frames=120)), ("short", dict(frames=3, columns=[1, 2, 4]))],
    "opts-constant-shortcut-stereo-f16": [("no-guidance", dict(frames=120, guidance=1.0))],
}

LONG_PROMPT = ("an extremely detailed description of a song that begins with a quiet piano, then adds strings, brass, "
               "a choir, hand claps, distorted guitars and finally a full orchestra; ") * 6

PROMPTS = [
    "electronic dance music", "80s pop track with bassy drums and synth", "90s rock song with loud guitars",
    "calm piano", "lo-fi hip hop beats to study to", "a cheerful ukulele tune", "dark ambient drone",
    "orchestral film score with brass and timpani", "reggae with deep bass", "acoustic folk guitar and violin",
    "fast drum and bass with an amen break", "smooth jazz saxophone solo", "bossa nova in the evening rain",
    "baroque harpsichord fugue", "minimal techno, 128 bpm", "heavy metal riff in drop D", "children singing a round",
    "solo cello, slow and sad", "funk bass and clavinet", "disco strings with a four on the floor kick",
    "chiptune melody in C minor", "sitar and tabla raga", "gospel choir with organ", "trap beat with 808 and hi-hat rolls",
    "surf rock with spring reverb", "a waltz for accordion", "new age flute over waves", "salsa piano montuno",
    "country song with banjo and fiddle", "dub techno chords with tape echo", "marching band", "music box lullaby",
]


# added to the prompts, one list after the other, while a search has found none with a wide margin
ENDINGS = ["", ", slow", ", live recording", ", 120 bpm", " at night", ", lo-fi", ", in the style of a film", ", for a friend",
           ", quiet", ", loud and fast", ", old tape", ", in a small room", ", without drums", ", minor key", ", major key", ", again"]


def fixed_prompt(name):
    """The prompts too long for a table: LONG has several hundred tokens, MEDIUM passes the distances a small relative
    position table tells apart."""
    return {"LONG": LONG_PROMPT.strip(), "MEDIUM": LONG_PROMPT[:160].strip()}.get(name, name)


DREAMBOOTH = ["enc_to_dec_proj", "audio_enc_to_dec_proj", "k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"]


def dreambooth(books):
    return DREAMBOOTH + [f"lm_heads.{k}" for k in range(books)] + [f"embed_tokens.{k}" for k in range(books)]


ATTENTION_FC = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]

# (checkpoint, adapter name, LoraConfig arguments, options)
ADAPTERS = [
    ("mono-f32", "plain", dict(r=4, lora_alpha=8, target_modules=ATTENTION_FC), dict(strengths=[1.0, 0.5])),
    ("mono-f32", "dreambooth", dict(r=8, lora_alpha=8, lora_dropout=0.05, target_modules=dreambooth(4)), {}),
    ("mono-f32", "rslora-patterns", dict(r=4, lora_alpha=6, use_rslora=True, target_modules=ATTENTION_FC + ["lm_heads.1"],
                                        rank_pattern={"fc1": 7, r"layers\.0\.self_attn\.q_proj": 2,
                                                      "decoder.model.decoder.layers.2.fc2": 1},
                                        alpha_pattern={"self_attn.v_proj": 3, "fc1": 12, "lm_heads.1": 2}), {}),
    ("mono-f32", "dora", dict(r=4, lora_alpha=4, use_dora=True,
                              target_modules=ATTENTION_FC + ["enc_to_dec_proj", "lm_heads.0", "embed_tokens.2"]), {}),
    ("mono-f32", "modules-to-save", dict(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"],
                                         modules_to_save=["enc_to_dec_proj", "lm_heads.3",
                                                          "decoder.model.decoder.layer_norm"]), {}),
    ("mono-f32", "text-encoder", dict(r=3, lora_alpha=6, target_modules=["q", "k", "v", "o", "wi", "wo"]), {}),
    ("mono-f32", "regex-bias", dict(r=5, lora_alpha=10, lora_bias=True,
                                    target_modules=r".*\.layers\.[02]\.(encoder_attn\.(q|out)_proj|fc1)"), {}),
    ("stereo-f16-sharded", "dreambooth", dict(r=6, lora_alpha=12, target_modules=dreambooth(8)), {}),
    ("mono-bf16-noproj", "half", dict(r=4, lora_alpha=8, target_modules=ATTENTION_FC), dict(half=True)),
]
