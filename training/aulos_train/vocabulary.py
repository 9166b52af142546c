# SPDX-License-Identifier: MIT
"""The text encoder's vocabulary: SentencePiece unigram, learned from captions and padded with plain English, in T5's layout."""

from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import T5Tokenizer

# Words that no caption has, so that a prompt in other words falls into few pieces; and every printable character.
PLAIN_ENGLISH = """
a song for a film scene with a beautiful sound that makes me think of summer rain and the open sea
please make some music for my video about space travel, the forest at night, a city in the morning
electronic dance track with heavy beats, ambient drone, jazz club, rock band, folk song, blues, funk, soul, country, techno, trance
classical music, orchestra, string quartet, opera, symphony, baroque harpsichord, cello, clarinet, oboe, bassoon, horn, tuba, trombone
electric guitar, banjo, ukulele, mandolin, accordion, harmonica, bagpipes, sitar, koto, bells, xylophone, timpani, percussion, voice
background music for a game level, menu screen, boss fight, victory, puzzle, racing, adventure, fantasy tavern, horror, mystery
relaxing study music, sleep, meditation, yoga, workout, party, wedding, birthday, winter holiday, advertisement, podcast intro
up and down, begin and end, quiet then loud, simple and complex, short notes, long notes, high and low, first and second, major minor
romantic epic funny strange nostalgic dreamy aggressive smooth rough clean distorted deep light heavy soft hard big small old new
one two three four five six seven eight nine ten, beat per minute, bar, rhythm, harmony, bass drum, snare, cymbal, hi-hat, clap
""".strip().splitlines()
CHARACTERS = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789", "! ? : ; ' \" ( ) - / & # + % * = _ @ , ."]


def learn(captions, folder, pieces=1000):
    """Writes spiece.model, tokenizer.json and tokenizer_config.json; -> the tokenizer."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "captions.txt"
    text.write_text("\n".join([*captions, *(PLAIN_ENGLISH + CHARACTERS) * 40]) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spiece"), vocab_size=pieces, model_type="unigram", hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>", character_coverage=1.0, num_threads=1, minloglevel=2)
    text.unlink()
    (folder / "spiece.vocab").unlink()
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((folder / "spiece.model").read_bytes())
    tokenizer = T5Tokenizer(vocab=[(p.piece, p.score) for p in model.pieces], extra_ids=0, model_max_length=512,
                            _spm_precompiled_charsmap=model.normalizer_spec.precompiled_charsmap or None)
    tokenizer.save_pretrained(folder)
    check(tokenizer, folder, captions[:500])
    return tokenizer


def check(tokenizer, folder, captions):
    """transformers' tokenizer gives the ids of SentencePiece itself."""
    processor = sentencepiece.SentencePieceProcessor(str(Path(folder) / "spiece.model"))
    for caption in captions:
        ids = tokenizer(caption).input_ids
        if ids != [*processor.encode(caption), 1]:
            raise ValueError(f"the tokenizers disagree about {caption!r}")
