"""GGUF vocabularies of tokenizers, as converters write them."""
import json


def write(tk, path, pre, bos=None, eos=None, template=None):
    """tk: byte-level BPE. Ids without a piece get a placeholder of their own, as converters give them."""
    import gguf
    data = json.loads(tk.to_str())
    added = {a["id"]: a for a in data["added_tokens"]}
    n = max(tk.get_vocab(True).values()) + 1
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([tk.id_to_token(i) or "[PAD%d]" % i for i in range(n)])
    writer.add_token_types([(3 if added[i]["special"] else 4) if i in added else 5 if tk.id_to_token(i) is None else 1
                            for i in range(n)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]])
    if bos is not None:
        writer.add_bos_token_id(tk.token_to_id(bos))
    if eos is not None:
        writer.add_eos_token_id(tk.token_to_id(eos))
    if template is not None:
        writer.add_chat_template(template)
    else:
        writer.add_add_bos_token((data["post_processor"] or {}).get("type") == "TemplateProcessing")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_sentencepiece(model, path, spaces=False):
    """model: bytes of a sentencepiece model. spaces: user-defined pieces of spaces are spelt so, as converters do that
    see them in tokenizer_config.json."""
    import gguf
    import tokenizer_sp
    rows = list(tokenizer_sp.pieces(model))
    parts = dict(tokenizer_sp.fields(model))
    trainer, normalizer = (dict(tokenizer_sp.fields(parts.get(n, b""))) for n in (2, 3))
    texts = [t.replace("\u2581", " ") if spaces and kind == tokenizer_sp.USER else t for t, _, kind in rows]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama" if trainer.get(3) == 2 else "t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores([s for _, s, _ in rows])
    writer.add_token_types([kind for _, _, kind in rows])
    ids = {t: i for i, t in enumerate(texts)}
    for names, add in ((["<bos>", "<s>"], writer.add_bos_token_id), (["<eos>", "</s>"], writer.add_eos_token_id),
                       (["<unk>"], writer.add_unk_token_id)):
        for name in names:
            if name in ids:
                add(ids[name])
                break
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(bool(normalizer.get(3, 1)))
    writer.add_remove_extra_whitespaces(bool(normalizer.get(4, 1)))
    if normalizer.get(2):
        writer.add_precompiled_charsmap(normalizer[2])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
