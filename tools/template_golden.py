#!/usr/bin/env python3
"""Writes tests/data/template/cases.jsonl: snippets that exercise each part of the template language, with what
transformers renders, or without "out" where it refuses.

Usage: template_golden.py > tests/data/template/cases.jsonl
Needs transformers==5.23 and jinja2==3.1.6."""
import json

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


main()
