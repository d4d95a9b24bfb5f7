"""The ids of models' own tokenization code (tokenization_*.py), and of transformers' slow LlamaTokenizer and GemmaTokenizer,
in the form of Hugging Face's tokenizers, for tools/tokenizer_compare.py --original. Run as a program it makes
tests/data/tokenizer/sp_llama* and sp_gemma: small models under transformers' own classes, and their ids.

Usage: tokenizer_original.py
Needs requirements-original.txt beside this file."""
import glob
import importlib.util
import json
import os
import shutil
import sys

VOCABULARIES = ("tokenizer.model", "qwen.tiktoken")


def find(folder):
    for name in VOCABULARIES:
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    return None


class Original:
    def __init__(self, folder):
        import transformers
        with open(os.path.join(folder, "tokenizer_config.json")) as f:
            config = json.load(f)
        sources = [p for p in glob.glob(os.path.join(folder, "tokenization_*.py")) if not p.endswith("_fast.py")]
        name = config.pop("tokenizer_class")
        if sources:
            module = "original_" + os.path.basename(os.path.abspath(folder))
            spec = importlib.util.spec_from_file_location(module, sources[0])
            sys.modules[module] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[module])
            kind = getattr(sys.modules[module], name)
        else:
            kind = getattr(transformers, name)
        keep = ("add_bos_token", "add_eos_token", "legacy", "add_prefix_space", "bos_token", "eos_token", "unk_token", "pad_token")
        options = {k: v if not isinstance(v, dict) else transformers.AddedToken(**{a: b for a, b in v.items() if a != "__type"})
                   for k, v in config.items() if k in keep}
        if "added_tokens_decoder" in config:
            options["added_tokens_decoder"] = {int(i): transformers.AddedToken(**{a: b for a, b in t.items() if a != "special"}, special=t.get("special", False))
                                               for i, t in config["added_tokens_decoder"].items()}
            options["additional_special_tokens"] = config.get("additional_special_tokens")
        if sources and find(folder).endswith(".model"):  # some ask for it before they have loaded it
            import sentencepiece
            kind.sp_model = sentencepiece.SentencePieceProcessor(model_file=find(folder))
        self.tk = kind(find(folder), **{k: v for k, v in options.items() if v is not None})
        self.encode_special_tokens = False

    def get_added_tokens_decoder(self):
        class Token:
            def __init__(self, content):
                self.content = content
        try:
            return {i: Token(str(t)) for i, t in self.tk.added_tokens_decoder.items()}
        except AttributeError:
            return {}

    def encode(self, text, add_special_tokens=True):
        class Result:
            pass
        r = Result()
        r.ids = self.tk.encode(text, add_special_tokens=add_special_tokens, split_special_tokens=self.encode_special_tokens)
        return r

    def decode(self, ids, skip_special_tokens=True):
        """None: these classes put spaces around special tokens, each in its own way; sentencepiece's is what is decoded."""
        return None


CLASSES = {  # folder: model, configuration
    "sp_llama": ("sp_bpe", dict(tokenizer_class="LlamaTokenizer", legacy=True)),
    "sp_llama_new": ("sp_bpe", dict(tokenizer_class="LlamaTokenizer", legacy=False, add_eos_token=True)),
    "sp_gemma": ("sp_bpe_bare", dict(tokenizer_class="GemmaTokenizer", bos_token="<s>", eos_token="</s>", pad_token="<unk>")),
}


def main():
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data", "tokenizer")
    with open(os.path.join(out, "texts.jsonl")) as f:
        texts = [json.loads(line) for line in f][:150] + ["<unk>", "a <unk>b", "x<s> y</s>z <s>", " </s> ", "<s>"]
    with open(os.path.join(out, "class_texts.jsonl"), "w") as f:
        f.writelines(json.dumps(t) + "\n" for t in texts)
    for name, (model, config) in CLASSES.items():
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        shutil.copy(os.path.join(out, model, "tokenizer.model"), folder)
        with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
            json.dump(config, f)
        tk = Original(folder)
        with open(folder + ".ids", "w") as f:
            for t in texts:
                line = {}
                for key, plain in (("ids", False), ("plain", True)):
                    tk.encode_special_tokens = plain
                    line[key] = tk.encode(t, not plain).ids
                f.write(json.dumps(line, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
