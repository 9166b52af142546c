# SPDX-License-Identifier: MIT
"""The whole model in the MusicGen layout, the delay pattern and the loss."""

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, MusicgenConfig, MusicgenDecoderConfig, MusicgenForConditionalGeneration, T5Config

from aulos_train import codec
from aulos_train.weights import model_weights

CODEBOOKS = 4


def build(text_pieces, width=256, layers=4, heads=4, feed_forward=1024, codes=1024, text_width=128, text_layers=2, codec_config=None):
    text = T5Config(
        vocab_size=text_pieces, d_model=text_width, d_kv=text_width // 4, d_ff=4 * text_width, num_layers=text_layers, num_heads=4, dropout_rate=0.0,
        feed_forward_proj="relu", is_encoder_decoder=False, use_cache=False, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1)
    decoder = MusicgenDecoderConfig(
        vocab_size=codes, max_position_embeddings=2048, num_hidden_layers=layers, ffn_dim=feed_forward, num_attention_heads=heads, hidden_size=width,
        dropout=0.0, num_codebooks=CODEBOOKS, audio_channels=1, pad_token_id=codes, bos_token_id=codes, initializer_factor=0.02)
    model = MusicgenForConditionalGeneration(MusicgenConfig(text_encoder=text, audio_encoder=codec_config or codec.config(codes=codes), decoder=decoder))
    finish_config(model, frames=500)
    return model


def finish_config(model, frames):
    pad = model.config.decoder.pad_token_id
    g = model.generation_config
    g.bos_token_id = g.decoder_start_token_id = g.pad_token_id = pad
    g.eos_token_id = None
    g.do_sample, g.guidance_scale = True, 3.0
    g.max_length = frames + CODEBOOKS  # positions beyond what was trained mean nothing
    model.config.decoder_start_token_id = model.config.decoder.decoder_start_token_id = pad


def load(folder):
    """(model in float32, tokenizer) of an exported folder."""
    return MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def start_from_codebooks(model, codec_source):
    """Rows of embeddings and heads begin as a random rotation of the codebook vectors, so that like codes share what is learned.
    With random rows the model stays for hundreds of steps at the frequencies of the codes."""
    found = model_weights(codec_source)
    width = model.config.decoder.hidden_size
    for k in range(CODEBOOKS):
        name = next(n for n in found if n.endswith(f"quantizer.layers.{k}.codebook.embed"))
        vectors = found[name]
        vectors = (vectors - vectors.mean(0)) / vectors.std()
        for rows, scale in ((model.decoder.model.decoder.embed_tokens[k].weight[:-1], 0.3), (model.decoder.lm_heads[k].weight, 0.03)):
            size = vectors.shape[1]
            rotation = torch.linalg.qr(torch.randn(max(width, size), min(width, size)))[0]
            rotation = (rotation.T if width > size else rotation) * (width / size) ** 0.5
            rows.copy_(vectors @ rotation * scale)


def delayed(codes, pad):
    """codes [B, K, F] -> columns [B, K, F + K]: column 0 is the start, frame f of codebook k stands in column f + 1 + k, the rest is pad."""
    batch, books, frames = codes.shape
    columns = torch.full((batch, books, frames + books), pad, dtype=torch.long, device=codes.device)
    for k in range(books):
        columns[:, k, 1 + k:1 + k + frames] = codes[:, k]
    return columns


def text_states(model, tokens):
    states = model.text_encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    return model.enc_to_dec_proj(states) * tokens["attention_mask"][..., None]


def loss_by_codebook(model, tokens, codes, without_text=None):
    """Cross entropy [K] of codes [B, K, F]. Rows marked in without_text see zeros for text, as guidance does when it generates."""
    states = text_states(model, tokens)
    if without_text is not None:
        states = states * (~without_text)[:, None, None]
    pad = model.config.decoder.pad_token_id
    columns = delayed(codes, pad)
    inputs, wanted = columns[:, :, :-1], columns[:, :, 1:]
    hidden = model.decoder.model.decoder(input_ids=inputs.reshape(-1, inputs.shape[-1]), encoder_hidden_states=states,
                                         encoder_attention_mask=tokens["attention_mask"], use_cache=False).last_hidden_state
    losses = []
    for k, head in enumerate(model.decoder.lm_heads):
        real = wanted[:, k] != pad
        losses.append(F.cross_entropy(head(hidden[real]).float(), wanted[:, k][real]))
    return torch.stack(losses)
