#!/usr/bin/env python3
"""Makes tests/data/smollm2/golden.bin: what transformers (float32) answers for tests/data/text/gettysburg.txt with the
weights of the SmolLM2-135M-Instruct GGUF that `make demo` fetches. Little-endian:

    8 bytes   "LAMTOP01"
    3 uint32  tokens N, kept per position K, vocabulary
    float32   the largest magnitude among all logits
    int32     ids [N], of the whole text without special tokens
    int32     best [N, K]: the ids with the largest logits after each position, best first
    float32   logits [N, K]: theirs
    float64   nll [N - 1]: minus the logarithm of the probability of ids[i + 1] after ids[0..i]

The weights are dequantised by the gguf package and the rows of q and k put back into halves; the tokenizer is made from
the vocabulary and merges in the file.

Usage: smollm2_golden.py FILE.gguf
Needs requirements.txt beside this file."""
import pathlib
import struct
import sys

import gguf
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"
KEEP = 8
NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def name_of(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{kind}"


def read_model(reader):
    def field(key):
        return reader.get_field("llama." + key).contents()

    config = transformers.LlamaConfig(
        vocab_size=field("vocab_size"), hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"), num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"), num_key_value_heads=field("attention.head_count_kv"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"), max_position_embeddings=field("context_length"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")}, tie_word_embeddings=True,
        attn_implementation="eager")
    weights = {}
    for t in reader.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(t.name.split(".")[-2])
        if heads:  # the inverse of llama.cpp's LlamaModel.permute
            w = w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
        weights[name_of(t.name)] = torch.from_numpy(np.ascontiguousarray(w))
    model = transformers.LlamaForCausalLM(config).eval().float()
    result = model.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys and result.missing_keys == ["lm_head.weight"], result
    model.tie_weights()
    return model


def read_tokenizer(reader):
    """Byte-level BPE; "smollm" splits digits singly, then as GPT-2 does."""
    def field(key):
        return reader.get_field("tokenizer.ggml." + key).contents()

    assert field("model") == "gpt2" and field("pre") == "smollm"
    vocab = {piece: i for i, piece in enumerate(field("tokens"))}
    tokenizer = Tokenizer(models.BPE(vocab, [tuple(m.split(" ")) for m in field("merges")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    reader = gguf.GGUFReader(sys.argv[1])
    ids = read_tokenizer(reader).encode((DATA / "text" / "gettysburg.txt").read_text()).ids
    logits = read_model(reader)(torch.tensor([ids]), use_cache=False).logits[0].double()
    best = torch.topk(logits, KEEP, dim=1)
    nll = -torch.log_softmax(logits[:-1], dim=1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    largest = logits.abs().max().item()
    out = DATA / "smollm2" / "golden.bin"
    out.parent.mkdir(exist_ok=True)
    with out.open("wb") as f:
        f.write(struct.pack("<8s3If", b"LAMTOP01", len(ids), KEEP, logits.shape[1], largest))
        for array, kind in ((ids, "<i4"), (best.indices, "<i4"), (best.values, "<f4"), (nll, "<f8")):
            f.write(np.asarray(array).astype(kind).tobytes())
    lead = ((best.values[:, 0] - best.values[:, 1]).min() / largest).item()
    print(f"torch {torch.__version__} transformers {transformers.__version__}: {len(ids)} tokens, largest logit "
          f"{largest:.3f}, least lead of an argmax {lead:.1e} of it, perplexity {nll.mean().exp().item():.6f}")


if __name__ == "__main__":
    main()
