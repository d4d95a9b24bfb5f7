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
