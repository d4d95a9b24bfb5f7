#!/usr/bin/env python3
"""Renders templates x conversations with transformers and with lamina and reports differences.

Usage: template_compare.py DRIVER PATH... [-v]
DRIVER: the program test_format_template. PATH: a .jinja file, a tokenizer_config.json, or a folder of either.
Identical text is wanted where transformers renders, a refusal where it refuses. Exit status 1 when anything differs.
Needs transformers==5.23 and jinja2==3.1.6."""
import argparse
import json
import os
import sys

import template_oracle

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather at a place, today.",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "A city, e.g. \"Zürich\" <&>"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": ["integer", "null"], "minimum": 1},
        "where": {"type": "array", "items": {"type": "number"}}}},
    "return": {"type": "string", "description": "A line"}}}
TIME = {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return dict({"role": "assistant", "content": text}, **more)


def call(name, arguments, identity="call12345"):
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(text, name="get_weather", identity="call12345"):
    return {"role": "tool", "name": name, "content": text, "tool_call_id": identity}


SYSTEM = {"role": "system", "content": "Be brief.\nBe kind."}
CALLED = [user("Weather?"), assistant(None, tool_calls=[call("get_weather", {"city": "Bern", "days": 2, "x": [1.5, None, True]})])]
CONVERSATIONS = {
    "empty": [],
    "plain": [user("Hello <there> & \"you\"")],
    "spaces": [user("  padded \n\n"), assistant("\n yes "), user("\tand?\n")],
    "system": [SYSTEM, user("Hi")],
    "system only": [SYSTEM],
    "turns": [SYSTEM, user("One"), assistant("Two"), user("Three"), assistant("Four"), user("Five")],
    "ends with assistant": [user("One"), assistant("Two")],
    "two users": [user("a"), user("b")],
    "begins with assistant": [assistant("I am here."), user("Good")],
    "unicode": [user("Grüße, 你好, 🙂, \u2028 line, İstanbul, ﬁ, \x07")],
    "none": [user("x"), assistant(None), user("y")],
    "none user": [user(None)],
    "parts": [user([{"type": "text", "text": "Look: "}, {"type": "text", "text": "there"}])],
    "image": [user([{"type": "image"}, {"type": "text", "text": "What is it?"}]), assistant([{"type": "text", "text": "A cat"}])],
    "thinking": [user("2+2?"), assistant("<think>\nfour\n</think>\n\n4"), user("3+3?")],
    "reasoning": [user("2+2?"), assistant("4", reasoning_content="two and two"), user("3+3?"), assistant("6", reasoning="r")],
    "call": CALLED,
    "call with text": [user("Weather?"), assistant("I look.", tool_calls=[call("get_weather", {"city": "Bern"})])],
    "call as text": [user("Weather?"), assistant("", tool_calls=[call("get_weather", "{\"city\": \"Bern\"}")])],
    "result": CALLED + [result("{\"t\": 21}")],
    "result, then talk": [SYSTEM] + CALLED + [result("21 °C"), assistant("It is 21 °C."), user("Thanks")],
    "two results": [user("Both?"), assistant("", tool_calls=[call("get_weather", {"city": "A"}, "aaaaaaaaa"), call("now", {}, "bbbbbbbbb")]),
                    result("1", "get_weather", "aaaaaaaaa"), result("2", "now", "bbbbbbbbb"), assistant("Done"), user("More")],
    "result as object": CALLED + [dict(result("x"), content={"t": 21})],
    "result as parts": CALLED + [dict(result("x"), content=[{"type": "text", "text": "21"}])],
    "developer": [{"role": "developer", "content": "Rules"}, user("Hi")],
    "function role": [user("Hi"), {"role": "function", "name": "f", "content": "1"}],
    "unknown role": [{"role": "critic", "content": "No"}, user("Hi")],
    "no content": [{"role": "user"}],
    "no role": [{"content": "x"}],
    "extra keys": [dict(user("Hi"), name="Ann", weight=1, items=[1])],
    "number": [user(7), assistant(1.5)],
    "call without type": [user("x"), assistant("", tool_calls=[{"name": "f", "arguments": {"a": "b"}}])],
}
SETTINGS = [
    {"add_generation_prompt": True}, {"add_generation_prompt": False},
    {"add_generation_prompt": True, "tools": [WEATHER, TIME]},
    {"add_generation_prompt": False, "tools": [WEATHER], "documents": [{"title": "T", "text": "Body"}]},
    {"add_generation_prompt": True, "extra": {"enable_thinking": False, "reasoning_effort": "high", "date_string": "1 Jan 2026"}},
    {"add_generation_prompt": True, "tools": [], "extra": {"enable_thinking": True, "thinking": True, "builtin_tools": ["browser", "python"],
                                                           "xml_tools": True, "keep_past_thinking": True}},
    {"add_generation_prompt": True, "tools": [WEATHER], "extra": {"bos_token": None}},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def spelling(token):
    return token["content"] if isinstance(token, dict) else token


def load(path):
    """(name, template, special tokens) of each template in a file."""
    if path.endswith(".jinja"):
        yield path, open(path, encoding="utf-8", newline="").read(), TOKENS
        return
    config = json.load(open(path, encoding="utf-8"))
    tokens = {k: spelling(v) for k, v in config.items() if k.endswith("_token") and spelling(v) is not None
              and isinstance(spelling(v), str)}
    templates = config.get("chat_template") or []
    if isinstance(templates, str):
        templates = [{"name": "default", "template": templates}]
    for t in templates:
        yield path + ":" + t["name"], t["template"], tokens


def files(path):
    if not os.path.isdir(path):
        return [path]
    return sorted(os.path.join(f, n) for f, _, names in os.walk(path) for n in names
                  if n.endswith(".jinja") or n == "tokenizer_config.json")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("driver")
    p.add_argument("paths", nargs="+")
    p.add_argument("-v", action="store_true", help="show both texts")
    p.add_argument("--reasons", action="store_true", help="show both sides' reasons where both refuse")
    o = p.parse_args()
    driver = template_oracle.Driver(o.driver)
    total = refusals = differ = templates = 0
    for path in (f for one in o.paths for f in files(one)):
        for name, source, tokens in load(path):
            templates += 1
            wrong = 0
            for title, messages in CONVERSATIONS.items():
                for n, settings in enumerate(SETTINGS):
                    case = dict(settings, template=source, messages=messages)
                    case["extra"] = {**tokens, **settings.get("extra", {})}
                    want, why = template_oracle.expected(case)
                    got, error = driver.render(case)
                    total += 1
                    refusals += want is None
                    if want is None and got is None and o.reasons:
                        print("   ", why[:150], "|", error[:150])
                    if want == got:
                        continue
                    wrong += 1
                    if wrong > 3:
                        continue
                    print("%s: %s, setting %d: %s" % (name, title, n, why or error or "texts differ"))
                    if o.v or (want is not None and got is not None):
                        at = 0 if want is None or got is None else len(os.path.commonprefix([want, got]))
                        print("  wanted %r\n  got    %r" % ((want or "")[max(0, at - 40):at + 100], (got or "")[max(0, at - 40):at + 100]))
            differ += wrong
            if wrong:
                print("%s: %d differ" % (name, wrong))
    print("%d templates, %d renderings (%d of them refused), %d differ" % (templates, total, refusals, differ))
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
