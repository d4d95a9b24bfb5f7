#!/usr/bin/env python3
"""Writes tests/data/template/cases.jsonl: snippets that exercise each part of the template language, with what
transformers renders, or without "out" where it refuses.

With --real FOLDER, writes tests/data/template/real.json: the conversations of template_compare.py and, for the template
of each FOLDER/*/tokenizer_config.json, hashes of what transformers renders of them ("": a refusal).

Usage: template_golden.py > tests/data/template/cases.jsonl
       template_golden.py --real FOLDER > tests/data/template/real.json
Needs transformers==5.23 and jinja2==3.1.6."""
import glob
import json
import os
import sys

import template_compare
import template_oracle
import template_snippets


def main():
    shared = {"messages": template_snippets.MESSAGES, "extra": template_snippets.EXTRA, "now": template_oracle.NOW}
    print(json.dumps(shared, ensure_ascii=False))  # what every case is given that has no messages of its own
    for case in template_snippets.cases():
        text, _ = template_oracle.expected(case)
        for name in shared:
            if case.get(name) == shared[name]:
                del case[name]
        if text is not None:
            case["out"] = text
        print(json.dumps(case, ensure_ascii=False))


def fnv(text):
    h = 0xcbf29ce484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001b3 & (1 << 64) - 1
    return "%016x" % h


def real(folder):
    conversations = [dict(settings, messages=messages, now=template_oracle.NOW)
                     for messages in template_compare.CONVERSATIONS.values() for settings in template_compare.SETTINGS[:5]]
    folders = []
    for path in sorted(glob.glob(os.path.join(folder, "*", "tokenizer_config.json"))):
        for _, source, tokens in template_compare.load(path):
            hashes = []
            for c in conversations:
                case = dict(c, template=source, extra={**tokens, **c.get("extra", {})})
                case.pop("now")
                text, _ = template_oracle.expected(case)
                hashes.append("" if text is None else fnv(text))
            folders.append({"name": os.path.basename(os.path.dirname(path)), "tokens": tokens, "hashes": hashes})
    json.dump({"conversations": conversations, "folders": folders}, sys.stdout, ensure_ascii=False)
    print()


if sys.argv[1:2] == ["--real"]:
    real(sys.argv[2])
else:
    main()
