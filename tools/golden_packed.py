"""Checkpoints whose matrices are stored in fewer bits: what is stored, and what it stands for.

Each takes {name: float32 array} and gives ({name: tensor to store}, {name: float32 tensor that it means}).
"""
import numpy as np
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

FP4 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)


def as_bf16(x):
    return torch.from_numpy(x).to(torch.bfloat16)


def fp8_blocks(weights, factor=torch.float32):
    """DeepSeek V3: e4m3 with a factor for each 128 x 128 block, the last ones of a row or column smaller."""
    stored, plain = {}, {}
    for name, x in weights.items():
        if x.ndim != 2 or ".layers." not in name or any(part in name for part in ("mlp.gate.", "eh_proj", "embed",
                                                                                  "shared_head")):
            exact = name.endswith("e_score_correction_bias")
            stored[name] = torch.from_numpy(x) if exact else as_bf16(x)
            plain[name] = stored[name].float()
            continue
        rows, columns = x.shape
        scale = np.zeros((-(-rows // 128), -(-columns // 128)), np.float32)
        for i in range(scale.shape[0]):
            for j in range(scale.shape[1]):
                scale[i, j] = np.abs(x[i * 128:(i + 1) * 128, j * 128:(j + 1) * 128]).max() / 448.0
        scale = torch.from_numpy(scale).to(factor)
        whole = scale.float().repeat_interleave(128, 0).repeat_interleave(128, 1)[:rows, :columns]
        stored[name] = (torch.from_numpy(x) / whole).clamp(-448, 448).to(torch.float8_e4m3fn)
        stored[name + "_scale_inv"] = scale
        plain[name] = stored[name].float() * whole
    return stored, plain


def mxfp4_experts(weights):
    """gpt-oss: along the inputs, 32 values of 4 bits (the first in the low half of a byte) share a power of two."""
    stored, plain = {}, {}
    for name, x in weights.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            stored[name] = as_bf16(x)
            plain[name] = stored[name].float()
            continue
        experts, inputs, outputs = x.shape
        x = x.transpose(0, 2, 1).reshape(experts, outputs, inputs // 32, 32)
        power = np.floor(np.log2(np.abs(x).max(-1))).astype(np.int32) - 2
        scaled = np.ldexp(x, -power[..., None])
        code = np.abs(np.abs(scaled)[..., None] - FP4).argmin(-1).astype(np.uint8)
        value = np.ldexp(np.where(scaled < 0, -FP4[code], FP4[code]), power[..., None]).astype(np.float32)
        code |= (scaled < 0).astype(np.uint8) << 3
        blocks, scales = code[..., 0::2] | code[..., 1::2] << 4, (power + 127).astype(np.uint8)
        for part, bytes_of in (("_blocks", blocks), ("_scales", scales)):
            stored[name + part] = torch.from_numpy(np.ascontiguousarray(bytes_of))
        means = value.reshape(experts, outputs, inputs).transpose(0, 2, 1)
        plain[name] = torch.from_numpy(np.ascontiguousarray(means))
        theirs = convert_moe_packed_tensors(stored[name + "_blocks"], stored[name + "_scales"], dtype=torch.float32)
        assert torch.equal(plain[name], theirs), name
    return stored, plain


def by_linear(weights, code):
    """code(name, x float32 array) -> ({suffix of "weight", or of the layer's name: tensor}, meaning) for the matrices
    of layers; the rest as bf16."""
    stored, plain = {}, {}
    for name, x in weights.items():
        if x.ndim != 2 or ".layers." not in name or name.endswith(".gate.weight"):
            stored[name] = as_bf16(x)
            plain[name] = stored[name].float()
            continue
        parts, plain[name] = code(torch.from_numpy(np.ascontiguousarray(x)))
        stem = name.removesuffix("weight")
        stored |= {stem + part: t.clone() for part, t in parts.items()}
        assert torch.isfinite(plain[name]).all() and plain[name].dtype == torch.float32
    return stored, plain


def bnb_four_bits(weights, kind, nested):
    import bitsandbytes.functional as bnb  # only these checkpoints need it

    def code(x):
        q, state = bnb.quantize_4bit(x.bfloat16(), blocksize=64, quant_type=kind, compress_statistics=nested)
        absmax = state.absmax
        if nested:
            scales = state.state2.absmax.repeat_interleave(state.state2.blocksize)[:absmax.numel()]
            absmax = state.state2.code[absmax.long()] * scales + state.offset
        codes = torch.stack([q >> 4, q & 15], -1).reshape(-1, 64).long()
        means = (state.code[codes] * absmax[:, None]).reshape(x.shape)
        theirs = bnb.dequantize_4bit(q, state).float()
        assert torch.allclose(means, theirs, rtol=2 ** -8, atol=1e-3 * float(absmax.max())), kind
        return {"weight": q} | {f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}, means
    return by_linear(weights, code)


def bnb_int8(weights):
    import bitsandbytes.functional as bnb  # only these checkpoints need it

    def code(x):
        q, scale, _ = bnb.int8_vectorwise_quant(x.half())
        means = bnb.int8_vectorwise_dequant(q, scale)
        return {"weight": q, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}, means
    return by_linear(weights, code)


def fp8_scaled(weights, rows, factor=torch.bfloat16):
    """One factor for each row, as compressed-tensors has it for channels, or one for all."""
    def code(x):
        scale = (x.abs().amax(1, keepdim=True) if rows else x.abs().max().reshape(1)).div(448).to(factor)
        q = (x / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
        parts = {"weight": q, "weight_scale": scale}
        if not rows:
            parts["input_scale"] = torch.tensor([0.25])
        return parts, q.float() * scale.float()
    return by_linear(weights, code)
