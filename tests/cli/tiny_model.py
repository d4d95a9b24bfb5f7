"""A tiny random checkpoint of the Llama layout, made with the standard library alone, for driving the program.

Large enough to be streamed in a budget that a small process allows; heads share keys three to one."""
import json
import os
import random
import struct

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 192, "intermediate_size": 512,
    "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 272,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16",
    "bos_token_id": 262, "eos_token_id": 263,
}


def byte_letters():
    """GPT-2's spelling of bytes as printable characters."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return {b: chr(b) if b in plain else chr(256 + [x for x in range(256) if x not in plain].index(b))
            for b in range(256)}


def tokenizer():
    letters = byte_letters()
    vocab = {letters[b]: b for b in range(256)}
    merges = [("t", "h"), ("th", "e"), (letters[32], "the"), ("i", "n"), ("a", "n"), ("an", "d")]
    for i, (a, b) in enumerate(merges):
        vocab[a + b] = 256 + i
    special = [{"id": 262, "content": "<s>"}, {"id": 263, "content": "</s>"}]
    for s in special:
        s.update(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                  "merges": [" ".join(m) for m in merges]},
    }


def tensors(c):
    h, q, kv = c["hidden_size"], c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    yield "model.embed_tokens.weight", (c["vocab_size"], h)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (h,)
        yield p + "self_attn.q_proj.weight", (q, h)
        yield p + "self_attn.k_proj.weight", (kv, h)
        yield p + "self_attn.v_proj.weight", (kv, h)
        yield p + "self_attn.o_proj.weight", (h, q)
        yield p + "post_attention_layernorm.weight", (h,)
        yield p + "mlp.gate_proj.weight", (c["intermediate_size"], h)
        yield p + "mlp.up_proj.weight", (c["intermediate_size"], h)
        yield p + "mlp.down_proj.weight", (h, c["intermediate_size"])
    yield "model.norm.weight", (h,)
    yield "lm_head.weight", (c["vocab_size"], h)


def numbers(rng, n, mean, spread):
    """n bfloat16 numbers, each one of 256 evenly spread around the mean: as many as wanted in no time."""
    table = [struct.pack("<f", mean + spread * (i - 127.5) / 127.5)[2:] for i in range(256)]
    places = rng.randbytes(n)
    data = bytearray(2 * n)
    data[0::2] = places.translate(bytes(t[0] for t in table))
    data[1::2] = places.translate(bytes(t[1] for t in table))
    return data


def write(folder, seed=1, with_tokenizer=True):
    """Writes the checkpoint; returns the bytes of its weights."""
    os.makedirs(folder)
    rng = random.Random(seed)
    header, data = {}, bytearray()
    for name, shape in tensors(CONFIG):
        begin, n = len(data), 1
        for d in shape:
            n *= d
        if len(shape) == 1:
            data += numbers(rng, n, 1.0, 0.1)
        else:
            data += numbers(rng, n, 0.0, 1.0 if "embed" in name else 2.0 / shape[1] ** 0.5)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(CONFIG, f)
    if with_tokenizer:
        with open(os.path.join(folder, "tokenizer.json"), "w") as f:
            json.dump(tokenizer(), f)
    return len(data)
