"""What transformers renders: the oracle of template_golden.py and template_compare.py."""
import datetime
import json
import subprocess

from transformers.utils import chat_template_utils

NOW = [2026, 7, 5, 14, 3, 9]


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime(*NOW)


chat_template_utils.datetime = FixedTime


def expected(case):
    """The rendered text, or None when transformers refuses; in both cases with the reason for people."""
    try:
        out = chat_template_utils.render_jinja_template(
            conversations=[case.get("messages") or []], tools=case.get("tools"), documents=case.get("documents"),
            chat_template=case["template"], add_generation_prompt=bool(case.get("add_generation_prompt")),
            **case.get("extra") or {})
        text = out[0][0]
        text.encode()
        return text, ""
    except Exception as e:  # whatever it is, it is a refusal
        return None, "%s: %s" % (type(e).__name__, e)


class Driver:
    """test_format_template --pipe: lamina's rendering."""

    def __init__(self, program):
        self.process = subprocess.Popen([program, "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def render(self, case):
        self.process.stdin.write(json.dumps(dict(case, now=NOW), ensure_ascii=False).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the driver ended at: " + case["template"][:500])
        answer = json.loads(line)
        return answer.get("out"), answer.get("error", "")
