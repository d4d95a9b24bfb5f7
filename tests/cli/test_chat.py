#!/usr/bin/env python3
"""Conversations as their user meets them: test_chat.py PATH/TO/lamina [unittest arguments]. Standard library only."""
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import tiny_model

LAMINA = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "build/lamina"
MEMORY = "256M"
TEMPLATE = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'dragon' %}{{ raise_exception('no dragons') }}{% endif %}"
            "{{ '<|' ~ m.role ~ '|>' ~ m.content ~ '<|end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}{{ mood }}")
SPECIAL = {264: "<|system|>", 265: "<|user|>", 266: "<|assistant|>", 267: "<|end|>"}
UPPER = [*map(ord, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")]  # no merges among them: what is said is tokenized as it was generated
LOWER = [*map(ord, "theinad ")]  # "t" and "h" are generated one by one, and tokenized as one
END = 267


def write_model(folder, letters, template=TEMPLATE, end=True, config=None):
    """A tiny model that says these letters only, and <|end|>, which its configuration does not name as an end."""
    tiny_model.write(folder)
    path = os.path.join(folder, "model.safetensors")
    with open(path, "r+b") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        begin, stop = json.loads(f.read(n))["lm_head.weight"]["data_offsets"]
        row = (stop - begin) // tiny_model.CONFIG["vocab_size"]
        at = lambda i: 8 + n + begin + i * row
        f.seek(at(letters[-1]))
        last = struct.unpack(f"<{row // 2}H", f.read(row))
        for i in range(tiny_model.CONFIG["vocab_size"]):
            if i not in letters:
                f.seek(at(i))
                f.write(bytes(row))
        if end: # where the last letter would be said, this: its row, doubled
            f.seek(at(END))
            f.write(struct.pack(f"<{row // 2}H", *(x + 128 if x & 0x7f80 else x for x in last)))
    tokenizer = tiny_model.tokenizer()
    for i, text in SPECIAL.items():
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": i, "content": text})
    for name, value in (("tokenizer.json", tokenizer), ("config.json", {**tiny_model.CONFIG, **(config or {})}),
                        ("tokenizer_config.json", {"bos_token": "<s>", **({"chat_template": template} if template else {})})):
        with open(os.path.join(folder, name), "w") as f:
            json.dump(value, f)


def lamina(*arguments, stdin=b"", timeout=120):
    """(exit code, standard output, standard error)"""
    p = subprocess.run([LAMINA, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout)
    return p.returncode, p.stdout, p.stderr.decode(errors="replace")


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="lamina-chat-")
        cls.upper, cls.lower = os.path.join(cls.folder, "upper"), os.path.join(cls.folder, "lower")
        write_model(cls.upper, UPPER)
        write_model(cls.lower, LOWER, end=False)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def good(self, *arguments, **more):
        code, out, err = lamina(*arguments, **more)
        self.assertEqual(code, 0, f"{arguments}: {err}")
        return out

    def chat(self, turns, *more, model=None, code=0, memory=MEMORY):
        """The answers, and standard error."""
        got, out, err = lamina("chat", model or self.upper, "--memory", memory, *more, stdin=turns.encode())
        self.assertEqual(got, code, err)
        self.assertTrue(out == b"" or out.endswith(b"\n"))
        return out.decode().split("\n")[:-1], err

    def messages(self, *turns, name="messages.json", system=None):
        """A file of a conversation: user and assistant in turn."""
        whole = [{"role": "system", "content": system}] if system else []
        whole += [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)]
        with open(self.path(name), "w") as f:
            json.dump(whole, f)
        return self.path(name)

    def run_messages(self, *turns, model=None, system=None, n=60):
        return json.loads(self.good("run", model or self.upper, "--memory", MEMORY, "--json", "-n", n, "--messages",
                                    self.messages(*turns, system=system)))

    def prompt_ids(self, *turns, model=None):
        text = self.good("template", model or self.upper, "--messages", self.messages(*turns)).decode()
        return self.ids(text, model)

    def ids(self, text, model=None):
        return [int(i) for i in self.good("tokenize", model or self.upper, "--no-special", "-p", text).split(b",")]

    def kept(self, err):
        """[(tokens kept, tokens fed)] of every answer."""
        return [(int(a), int(b)) for a, b in re.findall(r"(?m)^session +(\d+) tokens kept, (\d+) fed", err)]


class Turns(Case):
    def test_turns_are_those_of_the_whole_history(self):
        """Each answer is what `run --messages` gives for the whole; only what is new is fed."""
        said, questions = [], ["WHAT", "AND THE REST", "the thin land", "Z"]
        answers, err = self.chat("".join(q + "\n" for q in questions), "-n", "60", "--stats")
        self.assertEqual(len(answers), len(questions))
        held = 0
        for question, answer, (kept, fed) in zip(questions, answers, self.kept(err)):
            said.append(question)
            whole = self.run_messages(*said)
            self.assertEqual(answer, whole["text"])
            self.assertEqual((kept, kept + fed), (held, len(self.prompt_ids(*said))))
            said.append(answer)
            ended = whole["ids"][-1] == END # an end that is not fed; without it the last one is not fed either
            self.assertEqual(whole["finish_reason"], "stop" if ended else "length")
            held = kept + fed + len(whole["ids"]) - 1
        self.assertIn("stop after", err)
        self.assertTrue(any(answers))

    def test_generated_ids_stay(self):
        """The tokenizer would join what the model spelled in pieces: nothing is computed again for that."""
        first = self.run_messages("the end", model=self.lower, n=40)
        self.assertNotEqual(first["ids"], self.ids(first["text"], self.lower))
        answers, err = self.chat("the end\nand then\n", "-n", "40", "--stats", model=self.lower)
        self.assertEqual(answers[0], first["text"])
        prompt = self.prompt_ids("the end", model=self.lower)
        rest = self.ids("<|end|><|user|>and then<|end|><|assistant|>", self.lower)
        self.assertEqual(self.kept(err), [(0, len(prompt)), (len(prompt) + 39, 1 + len(rest))])
        ids = prompt + first["ids"] + rest
        second = json.loads(self.good("run", self.lower, "--memory", MEMORY, "--json", "-n", "40", "--ids",
                                      ",".join(map(str, ids))))
        self.assertEqual(answers[1], second["text"])

    def test_dropped_reasoning_is_fed_anew_from_there(self):
        """A template that shows earlier answers shortened: what was said is kept up to the first difference."""
        template = self.path("short.jinja")
        with open(template, "w") as f:
            f.write(TEMPLATE.replace("m.content ~", "('!' ~ m.content[2:] if m.role == 'assistant' else m.content) ~"))
        answers, err = self.chat("WHAT\nTHEN\n", "-n", "20", "--stats", "--template", template)
        kept = self.kept(err)
        self.assertEqual(kept[1][0], kept[0][1])
        code, out, _ = lamina("run", self.upper, "--memory", MEMORY, "-n", "20", "--template", template, "--messages",
                              self.messages("WHAT", answers[0], "THEN"))
        self.assertEqual((code, out.decode()), (0, answers[1]))

    def test_a_sliding_window_that_let_go(self):
        model = self.path("window")
        write_model(model, LOWER, end=False, config={"model_type": "mistral", "architectures": ["MistralForCausalLM"],
                                                     "sliding_window": 16})
        answers, err = self.chat("the end\n/retry\n", "-n", "60", "--stats", "--rows", "4", model=model)
        self.assertEqual(answers[0], answers[1])
        first = self.kept(err)[0]
        self.assertEqual(self.kept(err)[1], first)
        self.assertEqual(err.count("a sliding window had let go"), 1)

    def test_seeds_and_retry(self):
        more = ("-n", "30", "--temperature", "1.5", "--seed", "3")
        one, _ = self.chat("WHAT\nTHEN\n", *more)
        self.assertEqual(self.chat("WHAT\nTHEN\n", *more)[0], one)
        again, err = self.chat("WHAT\n/retry\n/retry\n/save " + self.path("drawn.json") + "\n", *more, "--stats")
        self.assertEqual((again[0], len(set(again))), (one[0], 3))
        self.assertEqual([fed for _, fed in self.kept(err)[1:]], [1, 1])
        with open(self.path("drawn.json")) as f:
            self.assertEqual([m["content"] for m in json.load(f)], ["WHAT", again[2]])

    def test_the_end_of_a_form_ends_run_too(self):
        """<|end|> is not among the model's ends; the template writes it after an answer."""
        told = self.run_messages("WHAT", n=200)
        self.assertEqual((told["finish_reason"], told["ids"][-1]), ("stop", END))
        ids = ",".join(map(str, self.prompt_ids("WHAT")))
        plain = json.loads(self.good("run", self.upper, "--memory", MEMORY, "--json", "-n", "200", "--ids", ids))
        self.assertGreater(len(plain["ids"]), len(told["ids"]))
        bare = self.path("bare.jinja") # nothing stands behind an answer: the next question's token ends it
        with open(bare, "w") as f:
            f.write("{% for m in messages %}{{ {'user': '<|end|>', 'assistant': '<|assistant|>\n '}[m.role] ~ m.content ~ ' \n' }}"
                    "{% endfor %}")
        code, out, err = lamina("run", self.upper, "--memory", MEMORY, "--json", "-n", "200", "--template", bare, "--messages",
                                self.messages("WHAT"))
        self.assertEqual(json.loads(out)["finish_reason"], "stop", err)


class Commands(Case):
    def saved(self, turns, *more, **named):
        path = self.path("saved.json")
        if os.path.exists(path):
            os.remove(path)
        answers, err = self.chat(turns + f"/save {path}\n", "-n", "8", *more, **named)
        with open(path) as f:
            messages = json.load(f)
        self.assertEqual([x for x in os.listdir(self.folder) if ".part" in x], [])
        return messages, answers, err

    def test_reset(self):
        answers, err = self.chat("WHAT\nTHEN\n/reset\nWHAT\n", "-n", "8", "--stats", "--system", "S")
        self.assertEqual(answers[2], answers[0])
        self.assertEqual(self.kept(err)[2][1], 1) # the same begin is kept, but for the last token
        self.assertEqual(self.saved("A\n/reset\n", "--system", "S")[0], [{"role": "system", "content": "S"}])

    def test_system(self):
        plain, _ = self.chat("WHAT\n", "-n", "20")
        given, _ = self.chat("WHAT\n", "-n", "20", "--system", "BE BRIEF")
        typed, _ = self.chat("FIRST\n/system BE BRIEF\nWHAT\n/system\nWHAT\n", "-n", "20")
        self.assertNotEqual(plain, given)
        self.assertEqual(typed[1:], given + plain)
        self.assertEqual(given[0], self.run_messages("WHAT", system="BE BRIEF", n=20)["text"])
        path = self.messages("WHAT", system="S")
        code, _, err = lamina("chat", self.upper, "--memory", MEMORY, "--messages", path, "--system", "T")
        self.assertEqual((code, err.count("\n")), (2, 1))
        self.assertIn("has a system message already", err)

    def test_save_and_load(self):
        messages, answers, _ = self.saved("WHAT \u00e9\nTHEN\n")
        self.assertEqual(messages, [{"role": "user", "content": "WHAT \u00e9"}, {"role": "assistant", "content": answers[0]},
                                    {"role": "user", "content": "THEN"}, {"role": "assistant", "content": answers[1]}])
        path = self.path("kept.json")
        shutil.copy(self.path("saved.json"), path)
        go_on, _ = self.chat("WHAT \u00e9\nTHEN\nAND\n", "-n", "8")
        self.assertEqual(self.chat(f"OTHER\n/load {path}\nAND\n", "-n", "8")[0][1:], go_on[2:])
        self.assertEqual(self.chat("AND\n", "-n", "8", "--messages", path)[0], go_on[2:])
        self.assertEqual(self.saved(f"/load {path}\n")[0], messages)

    def test_a_history_that_waits_is_answered(self):
        path = self.messages("WHAT", "X", "THEN")
        expected = self.run_messages("WHAT", "X", "THEN", n=8)["text"]
        self.assertEqual(self.chat("", "-n", "8", "--messages", path)[0], [expected])
        self.assertEqual(self.chat(f"/load {path}\n", "-n", "8")[0], [expected])

    def test_bad_files_leave_the_conversation(self):
        wrong = self.path("wrong.json")
        for text, words in (("[", "expected JSON"), ("{}", "expected an array"), ("[1]", "message 0"), ("[{}]", "with a role"),
                            (None, "No such file")):
            with self.subTest(text=text):
                if text is None:
                    os.remove(wrong)
                else:
                    with open(wrong, "w") as f:
                        f.write(text)
                messages, answers, err = self.saved(f"WHAT\n/load {wrong}\nTHEN\n", code=1)
                self.assertEqual([m["content"] for m in messages], ["WHAT", answers[0], "THEN", answers[1]])
                self.assertRegex(err, r"\Alamina: [^\n]+\n\Z")
                self.assertIn(words, err)
        for turns, words in (("/load -\n", "standard input"), ("/save /nowhere/x\n", "/nowhere/x"), ("/save\n", "expected FILE")):
            answers, err = self.chat(turns + "WHAT\n", "-n", "8", code=1)
            self.assertEqual(len(answers), 1)
            self.assertRegex(err, r"\Alamina: [^\n]+\n\Z")
            self.assertIn(words, err)

    def test_undo(self):
        messages, answers, _ = self.saved("WHAT\nTHEN\n/undo\n")
        self.assertEqual([m["content"] for m in messages], ["WHAT", answers[0]])
        self.assertEqual(self.chat("WHAT\nX\n/undo\nTHEN\n", "-n", "8")[0][2], self.chat("WHAT\nTHEN\n", "-n", "8")[0][1])
        for command in ("/undo", "/retry"):
            self.assertIn("nothing was asked yet", self.chat(command + "\n", code=1)[1])

    def test_lines(self):
        block = '"""\nONE\n\n/TWO \\\n"""\n'
        for turns, content in (("ONE\\\nTWO\\\n\\\nTHREE\n", "ONE\nTWO\n\nTHREE"), (block, "ONE\n\n/TWO \\"),
                               ('"""A"""\n', "A"), ('"""A\nB"""\n', "A\nB"), ('"""A\nB', "A\nB"), ("A\\", "A"), ("A", "A"),
                               ("A\r\n", "A"), ("//quit\n", "/quit"), ("//\n", "/"), ("\n \t\nA\n", "A"), ('"""\n/quit\n"""\n', "/quit"),
                               (' """ \n', ' """ ')):
            with self.subTest(turns=turns):
                # the command that saves cannot follow an unfinished turn: the history is asked of the template instead
                answers, err = self.chat(turns, "-n", "8")
                self.assertEqual(len(answers), 1, err)
                self.assertEqual(answers[0], self.run_messages(content, n=8)["text"])
        self.assertEqual(self.saved("/system A\\\nB\n")[0], [{"role": "system", "content": "A\nB"}])

    def test_unknown_commands_are_not_sent(self):
        messages, answers, err = self.saved("/rest\n/etc/hosts\n/reset now\nWHAT\n", code=1)
        self.assertEqual(len(messages), 2)
        lines = err.splitlines()
        self.assertEqual(len(lines), 3)
        for line, words in zip(lines, ("did you mean /reset?", "no command /etc/hosts", "/reset takes nothing after it")):
            self.assertIn(words, line)

    def test_help_and_quit(self):
        answers, err = self.chat("/help\n/quit\nWHAT\n")
        self.assertEqual(answers, [])
        for command in ("reset", "system", "save", "load", "undo", "retry", "help", "quit"):
            self.assertIn(f"  /{command} ", err)

    def test_text_that_is_not_utf8(self):
        code, out, err = lamina("chat", self.upper, "--memory", MEMORY, "-n", "8", stdin=b"\xff\xfe\nWHAT\n")
        self.assertEqual((code, out.count(b"\n")), (1, 1))
        self.assertIn("expected UTF-8", err)


class Refusals(Case):
    def bad(self, code, words, *arguments, stdin=b"WHAT\n"):
        got, out, err = lamina(*arguments, stdin=stdin)
        self.assertEqual((got, out), (code, b""), err)
        self.assertRegex(err, r"\Alamina: [^\n]+\n\Z")
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, err)

    def test_models(self):
        bare, mute = self.path("bare"), self.path("mute")
        write_model(bare, UPPER, template=None)
        tiny_model.write(mute, with_tokenizer=False)
        self.bad(1, ("has no chat template", "--template"), "chat", bare, "--memory", MEMORY)
        self.bad(1, ("tokenizer", "chat"), "chat", mute, "--memory", MEMORY)
        other = self.path("other.jinja")
        with open(other, "w") as f:
            f.write(TEMPLATE)
        self.assertEqual(self.chat("WHAT\n", "--template", other, model=bare)[0], self.chat("WHAT\n")[0])

    def test_options(self):
        for words, *more in ((("chat does not take --json", "run"), "--json"), ("does not take -p", "-p", "x"),
                             ("does not take --ids", "--ids", "1"), ("--no-generation-prompt", "--no-generation-prompt"),
                             (("--tokens", "'0'"), "-n", "0"), (("--messages", "standard input"), "--messages", "-"),
                             (("--tools", "standard input"), "--tools", "-"), ("did you mean --system?", "--sistem", "x")):
            with self.subTest(more=more):
                self.bad(2, words, "chat", self.upper, "--memory", MEMORY, *more)
        self.bad(1, "/nowhere", "chat", self.upper, "--memory", MEMORY, "--messages", "/nowhere")
        self.bad(1, "least", "chat", self.upper, "--memory", "1M")

    def test_a_template_that_refuses(self):
        """What the template refuses is taken back, and the conversation goes on."""
        path = self.path("dragon.json")
        with open(path, "w") as f:
            json.dump([{"role": "dragon", "content": "X"}, {"role": "assistant", "content": "Y"}], f)
        answers, err = self.chat("WHAT\n/reset\nWHAT\n", "-n", "8", "--messages", path, code=1)
        self.assertEqual(answers, [self.run_messages("WHAT", n=8)["text"]])
        self.assertIn("no dragons", err)

    def test_the_context_is_full(self):
        answers, err = self.chat("WHAT\n" + "X" * 50 + "\nTHEN\n", "--context", "30", "-n", "8", code=1)
        self.assertEqual(len(answers), 2)
        self.assertRegex(err, r"\Alamina: the conversation takes \d+ tokens and the context holds 30: /reset [^\n]+\n\Z")
        whole = self.run_messages("WHAT", answers[0], "THEN", n=8)
        self.assertTrue(whole["text"].startswith(answers[1]))
        long, err = self.chat("the end\n", "--context", "30", "--stats", model=self.lower)
        self.assertIn("; 30 of 30 held", err)
        self.assertEqual(long[0], self.run_messages("the end", model=self.lower, n=200)["text"][:len(long[0])])

    def test_a_small_budget_chooses_a_smaller_context(self):
        told = json.loads(lamina("plan", self.upper, "--json", "--memory", "1G", "--disk", "1G", "--context", "256")[1])
        little = told["minimum_bytes"] + (1 << 20)
        config = self.path("config.json")
        _, err = self.chat("WHAT\n", "-n", "4", "--stats", memory=str(little))
        self.assertRegex(err, r" of (256|512) held")
        del config

    def test_failing_allocations_and_reads(self):
        arguments = ("chat", self.upper, "--memory", MEMORY, "-n", "2")
        for kind, step in (("alloc", 6), ("read", 3)):
            n, failures = 1, 0
            while n < 100000:
                code, _, err = lamina(*arguments, "--faults", f"{kind}={n}", stdin=b"WHAT\nTHEN\n")
                self.assertIn(code, (0, 1), err)
                if code == 0:
                    break
                self.assertRegex(err, r"\A(lamina: [^\n]+\n)+\Z")
                failures += 1
                n = n + 1 if n < 6 else n + max(1, n // step)
            self.assertGreater(failures, 0, kind)


class Terminal:
    """A chat on a terminal of its own."""

    def __init__(self, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(LAMINA, [LAMINA, *map(str, arguments)])
        self.shown = ""

    def until(self, pattern, timeout=60):
        """What came up to the pattern, which has been taken."""
        end = time.monotonic() + timeout
        while not (m := re.search(pattern, self.shown)):
            if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"no {pattern!r} in {self.shown!r}")
            try:
                block = os.read(self.fd, 65536)
            except OSError:
                block = b""
            if not block:
                raise AssertionError(f"gone before {pattern!r}: {self.shown!r}")
            self.shown += block.decode(errors="replace")
        before, self.shown = self.shown[:m.start()], self.shown[m.end():]
        return before

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        """The exit code, once it is gone."""
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass
        os.close(self.fd)
        status = os.waitpid(self.pid, 0)[1]
        return os.waitstatus_to_exitcode(status)


class AtATerminal(Case):
    def start(self, *more, model=None):
        t = Terminal("chat", model or self.lower, "--memory", MEMORY, *more)
        t.until("/help lists commands")
        t.until("> ")
        return t

    def test_interrupted_answers_stay(self):
        path = self.path("partial.json")
        t = self.start("-n", "400", "--context", "512")
        t.type("the end\n")
        t.until("the end\r\n")
        t.until("[a-z ]{8}") # the answer is under way
        t.type("\x03")
        t.until("\r\n> ")
        t.type(f"/save {path}\n")
        t.until("2 messages in ")
        with open(path) as f:
            messages = json.load(f)
        partial = messages[1]["content"]
        self.assertEqual(messages[0]["content"], "the end")
        self.assertTrue(8 <= len(partial))
        whole = self.run_messages("the end", model=self.lower, n=400)["text"]
        self.assertTrue(whole.startswith(partial) and len(partial) < len(whole))
        t.until("> ")
        t.type("and\n")
        t.until("and\r\n")
        t.until("[a-z ]{8}")
        t.type("\x03")
        t.until("\r\n> ")
        t.type("/quit\n")
        self.assertEqual(t.end(), 0)

    def test_interrupts_at_the_prompt(self):
        t = self.start("-n", "8")
        for _ in range(2): # a turn between them forgets the first
            t.type("\x03")
            t.until(r"\(/quit or Ctrl-D to leave\)\r\n> ")
            t.type("the\n")
            t.until("the\r\n")
            t.until("\r\n> ")
        t.type("\x03")
        t.until(r"\(/quit or Ctrl-D to leave\)\r\n> ")
        t.type("\x03")
        self.assertEqual(t.end(), 0)

    def test_end_of_input(self):
        t = self.start()
        t.type("\x04")
        self.assertEqual(t.end(), 0)

    def test_blocks_prompt_on(self):
        t = self.start("-n", "8")
        t.type('"""one\n')
        t.until(r"\r\n\. ")
        t.type('two"""\n')
        t.until("\r\n> ")
        t.type("and\\\n")
        t.until(r"\r\n\. ")
        t.type("\x03") # the turn is dropped
        t.until(r"to leave\)\r\n> ")
        t.type("/undo\n")
        t.until("forgotten")
        t.until("> ")
        t.type("/undo\n")
        t.until("nothing was asked yet")
        t.type("\x04")
        self.assertEqual(t.end(), 0)

    def test_termination_at_the_prompt(self):
        t = self.start()
        os.kill(t.pid, signal.SIGTERM)
        t.end()

    def test_notes(self):
        t = self.start("-n", "8", "--context", "24")
        t.type("the\n")
        t.until(r"\[cut after 8 tokens; -n N allows more\]")
        t.type("and\n")
        t.until(r"\[the context of 24 tokens is full: /reset begins anew, --context N holds more\]")
        t.type("and\n")
        t.until("lamina: the conversation takes")
        t.type("/reset\n")
        t.until(r"\[a new conversation\]")
        t.type("the\n")
        t.until(r"\[cut after 8 tokens")
        t.type("\x04")
        self.assertEqual(t.end(), 0)


class Piped(Case):
    def test_an_interruption_ends_it(self):
        told = json.loads(lamina("plan", self.lower, "--json", "--memory", "1G", "--disk", "1G", "--context", "512")[1])
        p = subprocess.Popen([LAMINA, "chat", self.lower, "--memory", str(told["minimum_bytes"] + (4 << 20)), "-n", "400",
                              "--context", "512", "--rows", "8", "--faults", "delay=30000"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdin.write(b"the end\nand then\n")
        p.stdin.close()
        p.stdout.read(1)
        p.send_signal(signal.SIGINT)
        rest = p.stdout.read()
        self.assertEqual(p.wait(timeout=60), 1)
        self.assertEqual(rest.count(b"\n"), 1)
        p.stdout.close()
        p.stderr.close()

    def test_a_closed_reader_ends_quietly(self):
        p = subprocess.Popen([LAMINA, "chat", self.lower, "--memory", MEMORY, "-n", "400"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdin.write(b"the end\nand then\n")
        p.stdin.flush()
        p.stdout.read(1)
        p.stdout.close()
        self.assertEqual(p.wait(timeout=60), 0)
        self.assertEqual(p.stderr.read(), b"")
        p.stdin.close()
        p.stderr.close()

    def test_the_budget_holds(self):
        told = json.loads(lamina("plan", self.lower, "--json", "--memory", "1G", "--disk", "1G", "--context", "512")[1])
        little = str(told["minimum_bytes"] + (2 << 20))
        answers, _ = self.chat("the end\nand then\n", "-n", "20", "--context", "512", model=self.lower, memory=little)
        self.assertEqual(answers, self.chat("the end\nand then\n", "-n", "20", "--context", "512", model=self.lower)[0])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[1:]])
