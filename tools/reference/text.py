# SPDX-License-Identifier: MIT
"""Tokenizers: small SentencePiece models with the settings of T5's own, tokenizer.json, and the tokenizer cases."""

import json
import os
import subprocess
import sys

import numpy as np

from specs import PROMPTS, fixed_prompt

WORDS = """a an the of in on at with and or to for from by over under into like very more less slow fast warm cold dark bright
soft loud deep high low big small long short old new happy sad calm angry dreamy heavy light clean dirty wet dry sweet bitter
music song tune melody rhythm beat groove riff solo chord harmony bass drum drums kick snare hat cymbal clap percussion guitar
guitars piano organ synth synths pad pads lead strings violin viola cello double flute oboe clarinet bassoon saxophone trumpet
trombone horn tuba harp choir voice voices vocal vocals singer male female banjo fiddle mandolin ukulele sitar tabla accordion
harmonica bells marimba vibraphone glockenspiel timpani jazz rock pop funk soul blues disco house techno trance ambient dub
reggae ska punk metal folk country classical baroque romantic film score orchestra orchestral cinematic electronic dance hip hop
rap trap lo fi chill chillout lounge bossa nova samba salsa tango waltz march lullaby ballad anthem hymn opera raga drone noise
glitch vaporwave synthwave garage grime dubstep jungle breakbeat hardcore gabber acid minimal progressive psychedelic surf
reverb delay echo chorus flanger phaser distortion fuzz tape vinyl crackle hiss analog digital modular arpeggio sequence loop
sample bpm tempo minor major key scale mode beat beats bar bars verse bridge intro outro drop build rise fall morning evening
night summer winter rain wind sea ocean forest city street train space desert mountain river church hall room garden fire
children man woman crowd festival party club radio movie game trailer commercial study sleep run walk dream café naïve élan
über señor garçon façade piñata jalapeño smörgåsbord crème brûlée résumé""".split()


def corpus(seed, lines=4000):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(lines):
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(3, 14))]
        line = " ".join(words)
        kind = rng.integers(0, 8)
        if kind == 0:
            line = line.capitalize() + "."
        elif kind == 1:
            line = f"{rng.integers(60, 190)} bpm, {line}"
        elif kind == 2:
            line = f"{line} ({rng.integers(1950, 2026)}) - {words[0]}!"
        elif kind == 3:
            line = line.upper()
        elif kind == 4:
            line = f"\"{line}\"; {words[-1]}'s {words[0]}s?"
        out.append(line)
    return out


# A few rules in the place of the 240 kB of nmt_nfkc, for the option checkpoints: white space, full-width digits, ligatures
TINY_RULES = [("\t", " "), ("\n", " "), ("\u00a0", " "), ("\u3000", " "), ("ﬁ", "fi"), ("ﬂ", "fl"), ("½", "1⁄2"), ("…", "..."),
              *((chr(0xFF10 + i), str(i)) for i in range(10))]


def train_tokenizer(path, seed, pieces, tiny=False):
    """Writes spiece.model: unigram, nmt_nfkc, <pad> 0, </s> 1, <unk> 2, no BOS: the settings of T5's own model."""
    import io
    import sentencepiece as spm
    model = io.BytesIO()
    rule = dict(normalization_rule_name="nmt_nfkc")
    if tiny:
        rules = path + ".tsv"
        with open(rules, "w", encoding="utf-8") as f:
            for source, target in TINY_RULES:
                f.write(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n")
        rule = dict(normalization_rule_tsv=rules)
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(seed)), model_writer=model, vocab_size=pieces, model_type="unigram",
        character_coverage=1.0, **rule, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>", num_threads=1, hard_vocab_limit=False,
        minloglevel=2)
    data = model.getvalue()
    if tiny:
        from sentencepiece import sentencepiece_model_pb2 as pb
        os.remove(rules)
        proto = pb.ModelProto.FromString(data)
        proto.normalizer_spec.ClearField("normalization_rule_tsv")      # a path of this machine
        data = proto.SerializeToString()
    with open(path, "wb") as f:
        f.write(data)


def tokenizer_json(spiece, path, layout, extra=100):
    """Writes tokenizer.json as transformers does from a SentencePiece model. layout "t5": as T5 shipped first,
    "resave": as transformers 4.3x and later export it."""
    from sentencepiece import sentencepiece_model_pb2 as pb
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram
    proto = pb.ModelProto()
    with open(spiece, "rb") as f:
        proto.ParseFromString(f.read())
    vocab = [(p.piece, p.score) for p in proto.pieces] + [(f"<extra_id_{i}>", 0.0) for i in range(extra - 1, -1, -1)]
    tok = Tokenizer(Unigram(vocab, unk_id=2, byte_fallback=False))
    charsmap = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    meta = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    if layout == "t5":
        tok.normalizer = charsmap
        tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), meta])
    else:
        tok.normalizer = normalizers.Sequence(
            [charsmap, normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")])
        tok.pre_tokenizer = meta
    tok.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tok.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)])
    strip = layout != "t5"              # the re-export lets sentinels swallow the spaces around them
    tok.add_special_tokens([AddedToken(t, normalized=False) for t in ("<pad>", "</s>", "<unk>")] +
                           [AddedToken(f"<extra_id_{i}>", normalized=False, lstrip=strip, rstrip=strip)
                            for i in range(extra - 1, -1, -1)])
    tok.save(path)
    if layout == "t5":
        # the first T5 export has the fields of that time: str_rep and add_prefix_space instead of prepend_scheme, split
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        old = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
        data["pre_tokenizer"]["pretokenizers"][1] = old
        data["decoder"] = dict(old)
        with open(path, "w", encoding="utf-8") as f:
            json.dump(data, f, ensure_ascii=False)


def write_tokenizer(spec, directory, t5):
    """Returns the number of embedding rows the text encoder needs. `t5` holds the bytes of T5's spiece.model."""
    spiece = os.path.join(directory, "spiece.model")
    if spec.tokenizer == "t5":
        with open(spiece, "wb") as f:
            f.write(t5)
    elif spec.tokenizer == "tiny":
        train_tokenizer(spiece, spec.seed, 160, tiny=True)
    else:
        train_tokenizer(spiece, spec.seed, 500 + 20 * (spec.seed % 7))
    if spec.token_files in ("json", "both"):
        tokenizer_json(spiece, os.path.join(directory, "tokenizer.json"), spec.json_layout)
    import sentencepiece as spm
    size = spm.SentencePieceProcessor(model_file=spiece).get_piece_size() + 100
    if spec.token_files == "json":
        os.remove(spiece)
    with open(os.path.join(directory, "tokenizer_config.json"), "w") as f:
        json.dump({"additional_special_tokens": [f"<extra_id_{i}>" for i in range(100)], "eos_token": "</s>",
                   "extra_ids": 100, "model_max_length": 512, "pad_token": "<pad>", "tokenizer_class": "T5Tokenizer",
                   "unk_token": "<unk>"}, f, indent=2)
    return size + 28                    # T5 has 28 unused rows as well


def strings():
    """The strings of the tokenizer cases, by kind."""
    out = []

    def add(kind, *texts):
        out.extend((kind, t) for t in texts)

    add("plain", "electronic dance music", "Hi there I'm good", "Hello world", "a", "I", "the", "80s music", "Club techno",
        "90s rock song with loud guitars and heavy drums", "lo-fi beats, 85 bpm, rainy day", "UPPER CASE TITLE", "MiXeD cAsE",
        "semi;colon: and, comma. full stop! question? (brackets) [square] \"quotes\" 'single'", "e-mail@example.com",
        "https://example.com/a?b=c&d=%20e#f", "1234567890", "3.14159", "1,000,000.00", "C# minor / Db major", "4/4 @ 120BPM",
        "don't can't won't I'll we've", "snake_case and kebab-case", "a+b=c*d^e~f`g|h\\i/j<k>l", "$100 & £50 or €20", "100%",
        *PROMPTS)
    add("space", "", " ", "   ", "\t", "\n", "\r\n", " \t\n ", " leading", "trailing ", "  both  ", "two  spaces", "three   spaces",
        "tab\there", "new\nline", "line\r\nend", "a\n\nb", "a \n b", "vertical\vtab", "form\ffeed", "no\u00a0break", "\u00a0",
        "thin\u2009space", "ideographic\u3000space", "zero\u200bwidth", "zero\u200cwidth\u200djoiner", "soft\u00adhyphen",
        "word\u2060joiner", "\ufeffbom at start", "line\u2028separator", "paragraph\u2029separator", "next\u0085line",
        "a\u2003\u2003b", "\u200e left to right", "mongolian\u180evowel")
    add("control", "bell\u0007", "nul-ish \u0001\u0002", "escape \u001b[31mred", "delete\u007f", "c1 \u0080\u009f", "\u0008back")
    add("nfkc", "Ｆｕｌｌｗｉｄｔｈ", "ﬁne ﬂute oﬀ", "½ ¼ ¾ ⅓", "①②③", "Ⅳ Ⅻ", "x² + y³", "H₂O", "™ © ®", "…", "‥", "㎏ ㎞ ㏈", "ﾊﾝｶｸ",
        "Å Å", "Ω Ω", "℃ ℉", "№ 5", "ª º", "µ", "ſ long s", "ŉ", "Ǆ", "ﷺ", "﷼", "⑴ ⒈", "🄰 🅰", "𝕬𝖇𝖈 𝒹ℯ𝒻", "⁰¹²", "ⓐⓑ",
        "～", "！？", "“curly” ‘quotes’", "–en —em ―bar", "‐hyphen ‑nonbreaking", "⁄ fraction", "·•∙", "¨ ´ ¸", "｡｢｣", "㍿")
    add("combining", "cafe\u0301", "café", "e\u0301\u0323", "n\u0303", "o\u0308\u0304", "a\u030a", "A\u030a", "q\u0307\u0323",
        "z\u0335\u0336algo", "\u0301 alone", "e\u0301e\u0301", "I\u0307", "ä ö ü ß", "naïve façade Zoë", "Ångström", "ñandú",
        "e\u0302\u0301", "s\u0323\u0307", "क\u093c", "क्षि", "ก็", "각", "각", "\u1112\u1161\u11ab", "ﬀ\u0301", "½\u0301")
    add("emoji", "🎵", "🎵🎶", "music 🎵 here", "👩\u200d🎤", "👨\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "🇩🇪🇫🇷", "👍🏽", "❤️", "☺", "☺️", "1️⃣", "♫ ♪ ♭ ♯", "🎸rock", "a🎹b")
    add("cjk", "音楽", "電子音楽", "静かなピアノ曲", "日本語 と English", "你好，世界", "嘻哈", "音乐。", "한국 음악", "안녕하세요", "ㄱㄴㄷ",
        "カタカナ", "ひらがな", "ガギグ", "カ\u3099", "鬱", "𠮷野家", "「括弧」")
    add("scripts", "Привет мир", "музыка для танцев", "Ελληνικά", "שלום", "مرحبا بالعالم", "हिन्दी संगीत", "ภาษาไทย",
        "Tiếng Việt", "Türkçe müzik İıĞğ", "Łódź żółw", "Čeština řeřicha", "Română și țară", "größer Straße", "Œuvre cœur",
        "ꜩ ꙮ", "𐍈 gothic", "ᚠᚢᚦ", "ሰላም", "Հայ", "ქართული")
    add("special", "<extra_id_0>", "Hello <extra_id_0>.", "<extra_id_99>", "<extra_id_100>", "a<extra_id_1>b", "a <extra_id_1> b",
        "<extra_id_0><extra_id_1>", "<extra_id_ 0>", "</s>", "one </s> two", "one</s>two", "</s></s>", "<pad>", "<unk>", "<s>",
        "text <pad> text", "< /s>", "<EXTRA_ID_0>", "<extra_id_0> ", " <extra_id_0>", "x  <extra_id_5>  y", "{}", "{ a }",
        "[MASK] [CLS]", "▁", "▁music", "a▁b", "▁▁", " ▁ ", "music▁ ▁box", "\u2581\u2581 x", "<0x0A>", "<mask>")
    add("long", "pneumonoultramicroscopicsilicovolcanoconiosis", "a" * 300, "la" * 200, "music" * 60, "ab " * 150, "é" * 90,
        "x" * 1000, "音" * 40, "🎵" * 30, "antidisestablishmentarianism" * 4, "1234567890" * 12, "-" * 120, "." * 77, "!?" * 50,
        fixed_prompt("LONG"))
    add("mixed", "Ｃａｆé\u0301 del Mar — ﬁne “naïve” ½ ♫ 音楽 🎵", "DJ Ötzi feat. Ｘ-Ｔｙｐｅ ﬀ @ 23h½", " \u3000 ﬁ \u00a0\t x ",
        "(c) 2024 – “Ünïcödé” ™ </s> ♯4", "tempo≈128bpm±2", "→ drop ← build ↑", "A♭ major ⟨soft⟩", "C♯m7♭5", "∑∫√∞", "½ time",
        "“Don’t” – he said…", "rock’n’roll", "R&B", "AC/DC", "N°1", "1º", "¿Qué? ¡Olé!", "«guillemets»", "„deutsch“", "x̄ ± σ",
        "a\u0000b".replace("\u0000", "\u0003"), "\u202eright to left\u202c")
    return out


def transformers4_ids(directory_rows):
    """Ids of the T5TokenizerFast and the slow T5Tokenizer of transformers 4.57, in a process of their own. The slow class
    no longer exists in transformers 5. The environment variable TRANSFORMERS4 names a folder with that version:
        pip install --target FOLDER --no-deps transformers==4.57.6 tokenizers==0.22.1 huggingface_hub==0.36.0
    and that `requests` can be imported."""
    folder = os.environ.get("TRANSFORMERS4")
    if not folder:
        return None
    code = """
import json, sys, os, warnings
warnings.filterwarnings('ignore')
from transformers import T5Tokenizer, T5TokenizerFast
job = json.load(sys.stdin)
out = {}
for name, d in job['dirs'].items():
    r = {}
    files = os.listdir(d)
    t = T5TokenizerFast.from_pretrained(d)
    r['fast4'] = [t(s).input_ids for s in job['texts']]
    if 'spiece.model' in files:
        t = T5Tokenizer(os.path.join(d, 'spiece.model'), legacy=True)
        r['slow4'] = [t(s).input_ids for s in job['texts']]
    out[name] = r
json.dump(out, sys.stdout)
"""
    env = dict(os.environ, PYTHONPATH=folder)
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(directory_rows), text=True, env=env,
                          capture_output=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return json.loads(done.stdout)


def make_tokenizer_cases(root, directories, texts=None, path=None):
    """tokenizer/cases.json: for each tokenizer folder and string the ids of each implementation.

    ids      what is required: transformers 5 (T5Tokenizer through AutoTokenizer) on the folder as it is
    agree    whether every implementation that could be asked says the same
    other    the ids of those that say something else, by implementation:
             json              `tokenizers` on tokenizer.json exactly as stored
             fast4             transformers 4.57 T5TokenizerFast on the folder
             slow4             transformers 4.57 T5Tokenizer (SentencePiece, legacy=True)
             sentencepiece     the sentencepiece library itself, </s> appended, no special tokens in the text
    """
    import sentencepiece as spm
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer
    texts = strings() if texts is None else texts
    plain = [t for _, t in texts]
    old = transformers4_ids(dict(dirs={n: os.path.join(root, d) for n, d in directories.items()}, texts=plain)) or {}
    result = dict(note="see README.md, section tokenizer", tokenizers={}, cases=[])
    columns = {}
    for name, directory in directories.items():
        full = os.path.join(root, directory)
        tok = AutoTokenizer.from_pretrained(full)
        rows = {"ids": [tok(t).input_ids for t in plain]}
        if os.path.exists(os.path.join(full, "tokenizer.json")):
            fast = Tokenizer.from_file(os.path.join(full, "tokenizer.json"))
            rows["json"] = [fast.encode(t).ids for t in plain]
        if os.path.exists(os.path.join(full, "spiece.model")):
            sp = spm.SentencePieceProcessor(model_file=os.path.join(full, "spiece.model"))
            rows["sentencepiece"] = [sp.encode(t) + [1] for t in plain]
        rows.update(old.get(name, {}))
        columns[name] = rows
        result["tokenizers"][name] = dict(folder=directory, implementations=sorted(rows))
    differ = {}
    for i, (kind, text) in enumerate(texts):
        entry = dict(kind=kind, text=text, expect={})
        for name, rows in columns.items():
            ids = rows["ids"][i]
            other = {k: v[i] for k, v in rows.items() if k != "ids" and v[i] != ids}
            entry["expect"][name] = dict(ids=ids, agree=not other, **({"other": other} if other else {}))
            for k in other:
                differ.setdefault(name, {}).setdefault(k, []).append(i)
        result["cases"].append(entry)
    path = path or os.path.join(root, "tokenizer", "cases.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write("{\n\"note\": %s,\n\"tokenizers\": %s,\n\"cases\": [\n" % (
            json.dumps(result["note"]), json.dumps(result["tokenizers"])))
        f.write(",\n".join(json.dumps(c, ensure_ascii=True, separators=(",", ":")) for c in result["cases"]))
        f.write("\n]}\n")
    for name, d in differ.items():
        print(f"  {name}: {len(texts)} strings; differing from transformers 5:",
              {k: len(v) for k, v in d.items()}, flush=True)
    return differ
