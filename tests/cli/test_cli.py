#!/usr/bin/env python3
"""The program as its user meets it: test_cli.py PATH/TO/lamina [unittest arguments]. Standard library only."""
import ast
import json
import math
import os
import pathlib
import pty
import re
import resource
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
COMMANDS = ("run", "chat", "pack", "plan", "inspect", "verify", "logits", "tokenize", "detokenize", "template", "eval",
            "bench", "families", "completion", "help")
MEMORY = "256M"


def lamina(*arguments, stdin=b"", timeout=120):
    """(exit code, standard output, standard error)"""
    p = subprocess.run([LAMINA, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout)
    return p.returncode, p.stdout, p.stderr.decode(errors="replace")


def npy(path):
    """A float32 matrix of a .npy file as a list of rows, and its bytes."""
    with open(path, "rb") as f:
        assert f.read(8) == b"\x93NUMPY\x01\x00"
        header = ast.literal_eval(f.read(struct.unpack("<H", f.read(2))[0]).decode())
        data = f.read()
    rows, columns = header["shape"]
    assert header["descr"] == "<f4" and not header["fortran_order"] and len(data) == 4 * rows * columns
    values = struct.unpack(f"<{rows * columns}f", data)
    return [values[r * columns:(r + 1) * columns] for r in range(rows)], data


class Case(unittest.TestCase):
    def good(self, *arguments, **more):
        code, out, err = lamina(*arguments, **more)
        self.assertEqual(code, 0, f"{arguments}: {err}")
        return out

    def bad(self, expected_code, words, *arguments, **more):
        """The command ends with this code and one line that has these words."""
        code, _, err = lamina(*arguments, **more)
        self.assertEqual(code, expected_code, f"{arguments}: {err}")
        self.assertRegex(err, r"\Alamina: [^\n]+\n\Z", arguments)
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, err)


class Usage(Case):
    def test_wrong_usage_is_one_line_and_code_2(self):
        for words, *arguments in (
            ("expected a command",),
            ("did you mean 'run'?", "rnu"),
            ("no command 'xyzzy'", "xyzzy"),
            ("expected MODEL, found nothing", "run"),
            ("expected FILE", "eval", "m"),
            ("found 'b' too", "plan", "a", "b"),
            ("found 'b' too (a text is given with -p)", "run", "a", "b"),
            ("did you mean --temperature?", "run", "m", "--temprature", "1"),
            (("pack does not take --top-k", "run"), "pack", "m", "--top-k", "4"),
            (("--top-k", "whole number", "'x'"), "run", "m", "--top-k", "x"),
            (("--top-k", "whole number", "'-1'"), "run", "m", "--top-k", "-1"),
            (("--tokens", "'99999999999'"), "run", "m", "-n", "99999999999"),
            (("--temperature", "'nan'"), "run", "m", "--temperature", "nan"),
            (("--top-p", "from 0 to 1", "'1.5'"), "run", "m", "--top-p", "1.5"),
            (("--memory", "512M", "'4X'"), "run", "m", "--memory", "4X"),
            (("--memory", "'-4G'"), "run", "m", "--memory", "-4G"),
            (("--memory", "'0'"), "run", "m", "--memory", "0"),
            (("--memory", "commas"), "plan", "m", "--memory", "1G,,2G"),
            (("--io", "auto|io_uring|pread|buffered", "'fast'"), "run", "m", "--io", "fast"),
            (("--ids", "'x,2'"), "run", "m", "--ids", "1,x,2"),
            (("--ids", "'-1'"), "run", "m", "--ids", "-1"),
            (("--ids", "'2147483648'"), "run", "m", "--ids", "2147483648"),
            (("-p", "found nothing"), "run", "m", "-p"),
            (("--json takes no value",), "run", "m", "--json=yes"),
            (("--stop", "not empty"), "run", "m", "--stop", ""),
            (("--faults", "alloc=N"), "run", "m", "--faults", "all=3"),
            (("pack", "-o STORE"), "pack", "m"),
            (("logits", "-o OUT.npy"), "logits", "m", "--ids", "1"),
            (("expected bash", "'fish'"), "completion", "fish"),
        ):
            with self.subTest(arguments=arguments):
                self.bad(2, words, *arguments)

    def test_no_such_model(self):
        for command in ("run", "plan", "inspect", "verify", "bench", "tokenize"):
            with self.subTest(command=command):
                extra = ("-p", "x") if command in ("run", "tokenize") else ()
                self.bad(1, "/nowhere", command, "/nowhere/at/all", *extra)

    def test_help_of_everything(self):
        overview = self.good("--help").decode()
        for command in COMMANDS:
            self.assertIn(f"\n  {command} ", overview)
            text = self.good(command, "--help").decode()
            self.assertEqual(text, self.good("help", command).decode())
            self.assertTrue(text.startswith(f"lamina {command}: "))
            self.assertLessEqual(max(map(len, text.splitlines())), 92)
        self.assertRegex(self.good("--version").decode(), r"\Alamina \d+\.\d+\.\d+\n\Z")

    def test_families_are_listed_once(self):
        lines = self.good("families").decode().splitlines()
        self.assertEqual(lines[:2], ["| models | `model_type` | GGUF |", "|---|---|---|"])
        names = [re.fullmatch(r"\| [^|]+ \| `(\w+)`(?:, `\w+`)* \| (?:`[\w-]+` )?\|", line)[1] for line in lines[2:]]
        self.assertEqual(len(names), len(set(names)))
        for name in ("llama", "falcon", "baichuan", "deepseek_v3"):
            self.assertIn(name, names)
        self.bad(2, "'more'", "families", "more")

    def test_manual_and_completion_name_every_option(self):
        manual = self.good("--man").decode()
        completion = self.good("completion", "bash").decode()
        for command in COMMANDS:
            for option in re.findall(r"--[a-z-]+(?=[ \n])", self.good("help", command).decode()):
                if option in ("--help",):
                    continue
                self.assertIn(option.replace("-", "\\-"), manual)
                self.assertIn(option, completion)
        if shutil.which("groff"):
            p = subprocess.run(["groff", "-man", "-Tutf8", "-ww"], input=manual.encode(), capture_output=True)
            self.assertEqual(p.stderr, b"")
        if shutil.which("bash"):
            script = completion + "\nCOMP_WORDS=(lamina run --tempe); COMP_CWORD=2; _lamina; echo ${COMPREPLY[@]}"
            p = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
            self.assertEqual((p.stdout, p.stderr), ("--temperature\n", ""))


class WithModel(Case):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="lamina-cli-")
        cls.model = os.path.join(cls.folder, "model")
        cls.weights = tiny_model.write(cls.model)
        cls.mute = os.path.join(cls.folder, "mute")
        tiny_model.write(cls.mute, with_tokenizer=False)
        cls.ids = "5,6,7,200,9,260,40,41,3"
        told = json.loads(lamina("plan", cls.model, "--json", "--memory", "1G", "--disk", "1G", "--context", "512")[1])
        with open(LAMINA, "rb") as program: # what AddressSanitizer keeps beside the program wanders
            spare = (2 << 20) if b"__asan_init" in program.read() else (512 << 10)
        cls.little = str(told["minimum_bytes"] + spare)  # most of the model is streamed

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def logits(self, *more, model=None, ids=None):
        out = self.path("out.npy")
        self.good("logits", model or self.model, "--ids", ids or self.ids, "-o", out, "--memory", MEMORY, *more)
        return npy(out)


class Describing(WithModel):
    def test_inspect(self):
        told = json.loads(self.good("inspect", self.model, "--json"))
        self.assertEqual((told["family"], told["layers"], told["vocab"]), ("llama", 6, 272))
        self.assertEqual(told["eos_tokens"], [263])
        names = {t["name"]: t for t in told["tensors"]}
        self.assertEqual(set(names), {name for name, _ in tiny_model.tensors(tiny_model.CONFIG)})
        q = names["model.layers.1.self_attn.q_proj.weight"]
        self.assertEqual((q["role"], q["layer"], q["dtype"], q["shape"], q["bytes"]),
                         ("q", 1, "bf16", [192, 192], 2 * 192 * 192))
        self.assertEqual((q["bits_per_weight"], told["bits_per_weight"]), (16.0, 16.0))
        text = self.good("inspect", self.model).decode()
        for name in names:
            self.assertIn(name, text)
        for axis, value in told["axes"].items():
            self.assertRegex(text, rf"(?m)^{re.escape(axis)} +{re.escape(value)}$")
        self.assertNotIn("q_proj", self.good("inspect", self.model, "--brief").decode())
        self.assertNotIn("family", self.good("inspect", self.model, "--tensors").decode())

    def test_plan_terms_add_up(self):
        plan = json.loads(self.good("plan", self.model, "--memory", "64M", "--json", "--disk", "1G"))
        parts = sum(plan[k] for k in ("process_bytes", "vector_bytes", "kv_bytes", "activation_bytes", "ring_bytes",
                                      "pinned_bytes"))
        self.assertLessEqual(plan["predicted_peak_bytes"], plan["budget_bytes"])
        self.assertLessEqual(abs(parts - plan["predicted_peak_bytes"]), 0.05 * plan["predicted_peak_bytes"])
        self.assertEqual(plan["budget_bytes"], 64 << 20)
        self.assertLessEqual(plan["minimum_bytes"], 64 << 20)
        self.assertEqual(plan["device_bytes_per_s"], 2.0**30)

    def test_plan_of_a_configuration_alone(self):
        config = self.path("config.json")
        shutil.copy(os.path.join(self.model, "config.json"), config)
        for path in (config, self.model):
            ladder = json.loads(self.good("plan", path, "--json", "--disk", "1G"))["plans"]
            self.assertGreaterEqual(len(ladder), 2)
            reads = [p["streamed_bytes_per_pass"] for p in ladder]
            self.assertEqual(reads, sorted(reads, reverse=True))
            self.assertEqual(reads[-1], 0)
        table = self.good("plan", config, "--memory", "64M,128M").decode()
        self.assertIn("64.0 MiB", table)
        self.bad(1, "weights", "run", config, "--ids", "1")

    def test_too_small_a_budget_names_the_least(self):
        told = json.loads(lamina("plan", self.model, "--memory", "1M", "--json")[1])
        self.assertGreater(told["minimum_bytes"], 1 << 20)
        for command in (("run", "--ids", "1"), ("plan",), ("bench",)):
            self.bad(1, "1", command[0], self.model, *command[1:], "--memory", "1M")

    def test_the_least_budget_works(self):
        told = json.loads(self.good("plan", self.model, "--memory", "64M", "--context", "24", "--json"))
        least = told["minimum_bytes"]
        # How much of the program and its libraries is resident differs by half a megabyte from one start to the next.
        out = json.loads(self.good("run", self.model, "--ids", "1,2,3", "-n", "8", "--context", "24", "--json",
                                   "--memory", f"{least + (1 << 20)}", "--ignore-eos"))
        self.assertLessEqual(out["peak_rss_bytes"], out["budget_bytes"])


class Computing(WithModel):
    def test_logits_do_not_depend_on_how(self):
        rows, reference = self.logits()
        self.assertEqual((len(rows), len(rows[0])), (9, 272))
        self.assertTrue(all(math.isfinite(x) for row in rows for x in row))
        for more in (("--rows", "1"), ("--rows", "4"), ("--threads", "1"), ("--threads", "3"), ("--io", "pread"),
                     ("--io", "buffered"), ("--isa", "scalar"), ("--ring", "512K"), ("--memory", self.little),
                     ("--memory", self.little, "--io", "pread", "--faults", "short=3")):
            with self.subTest(more=more):
                self.assertEqual(self.logits(*more)[1], reference)
        self.assertEqual(self.logits("--last")[1], reference[-4 * 272:])
        self.assertEqual(self.logits(ids="5,6,7")[1], reference[:3 * 4 * 272])
        self.assertEqual([f for f in os.listdir(self.folder) if ".part" in f], [])

    def test_greedy_run_follows_the_logits(self):
        out = json.loads(self.good("run", self.model, "--ids", "5,6,7", "-n", "6", "--json", "--ignore-eos",
                                   "--memory", MEMORY))
        self.assertEqual((len(out["ids"]), out["finish_reason"]), (6, "length"))
        given = [5, 6, 7] + out["ids"][:-1]
        rows, _ = self.logits(ids=",".join(map(str, given)))
        self.assertEqual([row.index(max(row)) for row in rows[2:]], out["ids"])
        for name in ("decode_tokens_per_s", "prefill_tokens_per_s", "bytes_read", "seconds", "stall_seconds",
                     "compute_seconds", "peak_rss_bytes", "budget_bytes", "minimum_bytes", "pinned_bytes",
                     "streamed_bytes_per_pass", "device_bytes_per_s", "stream_efficiency"):
            self.assertIn(name, out)
        self.assertLessEqual(out["peak_rss_bytes"], out["budget_bytes"])

    def sampled(self, *more):
        return json.loads(self.good("run", self.model, "-p", "and the", "-n", "40", "--temperature", "1.5", "--json",
                                    "--ignore-eos", "--memory", MEMORY, *more))

    def test_seeds(self):
        first = self.sampled("--seed", "7")
        self.assertEqual(first["ids"], self.sampled("--seed", "7")["ids"])
        self.assertEqual(first["ids"], self.sampled("--seed", "7", "--threads", "1", "--rows", "1")["ids"])
        self.assertNotEqual(first["ids"], self.sampled("--seed", "8")["ids"])
        self.assertEqual(self.sampled("--top-k", "1", "--seed", "3")["ids"],
                         self.sampled("--temperature", "0", "--seed", "4")["ids"])

    def test_streamed_text_is_the_text(self):
        told = self.sampled("--seed", "7")
        streamed = self.good("run", self.model, "-p", "and the", "-n", "40", "--temperature", "1.5", "--seed", "7",
                             "--ignore-eos", "--memory", MEMORY)
        self.assertEqual(streamed.decode(), told["text"])

    def test_stop_strings_span_tokens(self):
        text = self.sampled("--seed", "7")["text"]
        for begin in (1, 5, 11):
            for length in (1, 2, 5):
                stop = text[begin:begin + length]
                if not stop or "\0" in stop:  # an argument cannot hold it
                    continue
                with self.subTest(stop=stop):
                    cut = self.sampled("--seed", "7", "--stop", stop)
                    self.assertEqual((cut["text"], cut["finish_reason"]), (text[:text.index(stop)], "stop"))
                    streamed = self.good("run", self.model, "-p", "and the", "-n", "40", "--temperature", "1.5",
                                         "--seed", "7", "--ignore-eos", "--memory", MEMORY, "--stop", stop)
                    self.assertEqual(streamed.decode(), cut["text"])
        almost = text[20:24].split("\0")[0] + "\x01never"
        self.assertEqual(self.sampled("--seed", "7", "--stop", almost)["text"], text)

    def test_without_a_tokenizer(self):
        out = self.good("run", self.mute, "--ids", "1,2,3", "-n", "4", "--ignore-eos", "--memory", MEMORY)
        self.assertRegex(out.decode(), r"\A\d+( \d+){3}\Z")
        self.bad(1, "--ids", "run", self.mute, "-p", "text", "--memory", MEMORY)
        self.bad(2, "272", "run", self.mute, "--ids", "272", "--memory", MEMORY)
        self.assertEqual(self.logits(model=self.mute)[1], self.logits()[1])

    def test_perplexity(self):
        text = b"the and in the land and then the thin hand in the sand " * 3
        path = self.path("text.txt")
        with open(path, "wb") as f:
            f.write(text)
        ids = [int(x) for x in self.good("tokenize", self.model, "-f", path).split(b",")]
        told = json.loads(self.good("eval", self.model, path, "--context", "32", "--stride", "12", "--json",
                                    "--memory", MEMORY))
        total, n, done = 0.0, 0, 0
        for begin in range(0, len(ids), 12):
            end = min(begin + 32, len(ids))
            rows, _ = self.logits(ids=",".join(map(str, ids[begin:end])))
            for at in range(max(done, begin + 1), end):
                row = rows[at - begin - 1]
                top = max(row)
                total += math.log(sum(math.exp(x - top) for x in row)) + top - row[ids[at]]
                n += 1
            done = end
            if end == len(ids):
                break
        self.assertEqual((told["scored_tokens"], told["tokens"]), (n, len(ids)))
        self.assertEqual(n, len(ids) - 1)
        self.assertAlmostEqual(told["nll"], total / n, delta=1e-9 * total)
        self.assertAlmostEqual(told["perplexity"], math.exp(total / n), delta=1e-8 * math.exp(total / n))

    def test_bench(self):
        told = json.loads(self.good("bench", self.mute, "--seconds", "0.05", "--rounds", "2", "--prompt-tokens", "32",
                                    "--memory", MEMORY, "--json"))
        self.assertGreater(told["decode_tokens_per_s"], 0)
        self.assertGreater(told["prefill_tokens_per_s"], 0)
        self.assertIn(told["token_seconds"]["binding"], ("disk", "arithmetic", "memory"))
        text = self.good("bench", self.mute, "--seconds", "0.05", "--rounds", "1", "--memory", MEMORY).decode()
        self.assertIn("<- binds", text)

    def test_trace(self):
        path = self.path("trace.json")
        self.good("run", self.model, "--ids", "1,2", "-n", "2", "--memory", MEMORY, "--trace", path)
        with open(path) as f:
            self.assertGreater(len(json.load(f)), 0)


class Comparing(WithModel):
    """eval --against: the divergence and its like by hand, from the logits of both; what is refused; what is left behind."""

    TEXT = b"the and in the land and then the thin hand in the sand " * 3

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = os.path.join(cls.folder, "text.txt")
        with open(cls.text, "wb") as f:
            f.write(cls.TEXT)
        cls.near = cls.variant("near", rms_norm_eps=0.05)
        cls.far = cls.variant("far", seed=2)

    @classmethod
    def variant(cls, name, seed=1, extra_tokens=(), merges=None, **config):
        """Another model: other weights, other values of config.json, other tokens."""
        path, before = os.path.join(cls.folder, name), dict(tiny_model.CONFIG)
        tiny_model.CONFIG.update(config)
        try:
            tiny_model.write(path, seed)
        finally:
            tiny_model.CONFIG.clear()
            tiny_model.CONFIG.update(before)
        tokenizer = tiny_model.tokenizer()
        tokenizer["added_tokens"] += [dict(tokenizer["added_tokens"][0], id=i, content=f"<x{i}>") for i in extra_tokens]
        tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:merges]
        with open(os.path.join(path, "tokenizer.json"), "w") as f:
            json.dump(tokenizer, f)
        return path

    def compare(self, model, reference, *more, **options):
        against = ("--against", reference) if reference else ()
        return json.loads(self.good("eval", model, self.text, *against, "--context", "32", "--stride", "12", "--json",
                                    "--memory", MEMORY, *more, **options))

    def by_hand(self, model, reference, vocab=272):
        """[(kl, nll of the model, nll of the reference, same likeliest token)] of every scored token."""
        ids = [int(x) for x in self.good("tokenize", self.model, "-f", self.text).split(b",")]
        out, done = [], 0
        for begin in range(0, len(ids), 12):
            end = min(begin + 32, len(ids))
            window = ",".join(map(str, ids[begin:end]))
            both = [self.logits(model=m, ids=window)[0] for m in (model, reference)]
            for at in range(max(done, begin + 1), end):
                q, p = ([x - max(rows[at - begin - 1][:vocab]) for x in rows[at - begin - 1][:vocab]] for rows in both)
                q, p = ([x - math.log(sum(map(math.exp, row))) for x in row] for row in (q, p))
                out.append((sum(math.exp(a) * (a - b) for a, b in zip(p, q)), -q[ids[at]], -p[ids[at]],
                            p.index(max(p)) == q.index(max(q))))
            done = end
            if end == len(ids):
                return out

    def check(self, told, rows):
        def mean(values):
            values = list(values)
            return sum(values) / len(values)

        def at(share):
            place = share * (len(rows) - 1)
            low = min(int(place), len(rows) - 2)
            return kl[low] + (place - low) * (kl[low + 1] - kl[low])

        kl = sorted(r[0] for r in rows)
        shifts = [math.exp(-r[1]) - math.exp(-r[2]) for r in rows]
        self.assertEqual(told["scored_tokens"], len(rows))
        for name, value in (("nll", mean(r[1] for r in rows)), ("nll_difference", mean(r[1] - r[2] for r in rows)),
                            ("kl_mean", mean(kl)), ("kl_median", at(0.5)), ("kl_p90", at(0.9)), ("kl_p99", at(0.99)),
                            ("kl_max", kl[-1]), ("top1_agreement", mean(r[3] for r in rows)),
                            ("probability_difference_mean", mean(shifts)),
                            ("probability_difference_rms", math.sqrt(mean(x * x for x in shifts)))):
            # quantiles and the maximum are single tokens', which the rounding of what is kept moves a little further
            self.assertAlmostEqual(told[name], value, delta=1e-4 if name[3:] in ("median", "p90", "p99", "max") else 1e-5,
                                   msg=name)
            if name != "kl_max":
                self.assertGreaterEqual(told[name + "_stderr"], 0)
        self.assertAlmostEqual(told["reference"]["nll"], mean(r[2] for r in rows), delta=1e-6)
        self.assertLess(abs(told["kl_mean"] - mean(kl)), 6 * told["kl_rounding"])
        return mean(kl)

    def test_against_itself(self):
        told = self.compare(self.model, self.model)
        self.assertEqual((told["top1_agreement"], told["nll_difference"], told["probability_difference_rms"]), (1, 0, 0))
        self.assertLess(told["kl_max"], 1e-7)
        self.assertLess(told["kl_mean"], 2 * told["kl_rounding"])
        self.assertLess(told["kl_rounding"], 1e-7)
        alone = json.loads(self.good("eval", self.model, self.text, "--context", "32", "--stride", "12", "--json",
                                     "--memory", MEMORY))
        for name in ("nll", "nll_stderr", "perplexity", "scored_tokens"):
            self.assertEqual(told[name], alone[name])
        self.assertNotIn("kl_mean", alone)

    def test_divergence(self):
        near = self.check(self.compare(self.near, self.model), self.by_hand(self.near, self.model))
        far = self.check(self.compare(self.far, self.model), self.by_hand(self.far, self.model))
        self.assertTrue(1e-5 < near < 0.2 < far, (near, far))
        text = self.good("eval", self.near, self.text, "--against", self.model, "--memory", MEMORY).decode()
        self.assertRegex(text, r"(?m)^kl mean 0\.\d{6} \+- 0\.\d{6} ")
        self.assertRegex(text, r"(?m)^top-1 agreement [\d.]+ \+- [\d.]+ %$")

    def test_how_does_not_matter(self):
        """The least budget, a kept file, a kept file alone, any threads: the same numbers."""
        kept = self.path("kept.logits")
        names = ("nll", "kl_mean", "kl_mean_stderr", "kl_p99", "kl_p99_stderr", "kl_max", "top1_agreement", "kl_rounding",
                 "probability_difference_rms")
        told = self.compare(self.near, self.model)
        least = str(told["minimum_bytes"] + (4 << 20))
        for more, reference, reused in (((), self.model, False), (("--memory", least, "--threads", "1"), self.model, False),
                                        (("--logits-cache", kept), self.model, False),
                                        (("--logits-cache", kept), self.model, True), (("--logits-cache", kept), None, True)):
            with self.subTest(more=more, reused=reused):
                again = self.compare(self.near, reference, *more)
                self.assertEqual([again[n] for n in names], [told[n] for n in names])
                self.assertEqual(again["logits_cache_reused"], reused)
                self.assertEqual(again["against"], self.model)
        self.assertEqual(os.path.getsize(kept), told["logits_cache_bytes"])
        self.assertEqual([f for f in os.listdir(self.folder) if ".part" in f], [])
        store = self.path("kept.store")
        self.good("pack", self.model, "-o", store)
        self.assertTrue(self.compare(self.near, store, "--logits-cache", kept)["logits_cache_reused"])  # the same weights

    def test_padding_of_vocabularies(self):
        padded = self.variant("padded", vocab_size=288, seed=3)
        for model, reference in ((padded, self.model), (self.model, padded)):
            told = self.compare(model, reference)
            self.assertEqual(told["vocab_compared"], 272)
            self.check(told, self.by_hand(model, reference))

    def refuse(self, words, *arguments, code=1, **more):
        """As bad(), after notes."""
        told, _, err = lamina("eval", "--memory", MEMORY, *arguments, **more)
        self.assertEqual(told, code, err)
        self.assertRegex(err, r"\A(lamina: note: [^\n]+\n)*lamina: [^\n]+\n\Z")
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, err)

    def test_models_that_cannot_be_compared(self):
        more = self.variant("more", vocab_size=288, extra_tokens=range(264, 288))
        self.refuse((more, self.model, "same vocabulary", "288", "272"), more, self.text, "--against", self.model)
        self.refuse("same vocabulary", self.model, self.text, "--against", more)
        other = self.variant("other", merges=4)
        self.refuse((other, self.model, "same tokenization", "text.txt"), self.model, self.text, "--against", other)
        short = self.path("short.txt")
        with open(short, "wb") as f:
            f.write(b"a")
        self.refuse(("short.txt", "at least two tokens"), self.model, short, "--against", self.near)
        self.refuse("/nowhere", self.model, self.text, "--against", "/nowhere")
        self.refuse("tokenizer", self.model, self.text, "--against", self.mute)
        self.refuse("budget", self.model, self.text, "--against", self.near, "--memory", "1M")

    def test_files_that_are_not_the_reference(self):
        kept = self.path("one.logits")
        context = ("--context", "32", "--stride", "12")
        self.compare(self.near, self.model, "--logits-cache", kept)
        with open(kept, "rb") as f:
            whole = f.read()

        def refuse(words, data=None, *more, text=self.text):
            bad = kept
            if data is not None:
                bad = self.path("bad.logits")
                with open(bad, "wb") as f:
                    f.write(data)
            self.refuse(words, self.near, text, "--logits-cache", bad, *(more or context))
            with open(bad, "rb") as f:
                self.assertEqual(f.read(), whole if data is None else data)

        refuse("not a file of logits", b"")
        refuse("not a file of logits", b"x" * 10000)
        for n in (10, 255):
            refuse("not a file of logits", whole[:n])
        for n in (256, 300, len(whole) // 2, len(whole) - 1):
            refuse("bytes for", whole[:n])
        refuse("bytes for", whole + b"x")
        refuse("version", whole[:8] + b"\2" + whole[9:])
        refuse("damaged", whole[:12] + bytes(4) + whole[16:])
        refuse("damaged", whole[:-544 - 8] + b"\xff\xff\0\0" + whole[-544 - 4:])  # the last one's likeliest token
        refuse("another: token", whole[:256] + b"\1\0\0\0" + whole[260:])
        refuse("windows of 32 tokens every 16, found 32 every 12", None, "--context", "32", "--stride", "16")
        self.refuse("another model", self.near, self.text, "--against", self.far, "--logits-cache", kept, *context)
        longer = self.path("longer.txt")
        with open(longer, "wb") as f:
            f.write(self.TEXT + b"\n")
        refuse("this text's", None, *context, text=longer)
        self.refuse("found neither", self.near, self.text, "--logits-cache", self.path("none"), code=2)
        self.refuse("/nowhere", self.near, self.text, "--against", self.model, "--logits-cache", "/nowhere/x")

    def empty_folder(self, name):
        path = self.path(name)
        os.mkdir(path)
        return path

    def test_nothing_is_left_behind(self):
        """Whatever ends it: no room, an interrupt, a kill."""
        folder, large = self.empty_folder("tmp"), self.path("large.txt")
        with open(large, "wb") as f:
            f.write(self.TEXT * 400)
        environment = dict(os.environ, TMPDIR=folder)
        arguments = [LAMINA, "eval", self.near, large, "--against", self.model, "--context", "32", "--memory", MEMORY,
                     "--progress"]

        def small_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

        kept = os.path.join(folder, "kept.logits")
        for more, words in (((), "temporary file of logits"), (("--logits-cache", kept), kept)):
            p = subprocess.run([*arguments, *more], env=environment, capture_output=True, preexec_fn=small_files,
                               restore_signals=False)
            self.assertEqual(p.returncode, 1)
            self.assertRegex(p.stderr.decode(), rf"\nlamina: [^\n]*{words}[^\n]*: File too large\n\Z")
            self.assertEqual(os.listdir(folder), [])
        for number, more in ((signal.SIGINT, ()), (signal.SIGKILL, ()), (signal.SIGINT, ("--logits-cache", kept))):
            p = subprocess.Popen([*arguments, *more, "--rows", "1"], env=environment, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
            self.assertIn(b"note: logits of", p.stderr.readline())
            time.sleep(0.3)
            self.assertEqual(len(os.listdir(folder)), 1 if more else 0)
            p.send_signal(number)
            _, err = p.communicate(timeout=60)
            self.assertEqual(p.returncode, 1 if number == signal.SIGINT else -number, err)
            self.assertEqual(os.listdir(folder), [])
            if number == signal.SIGINT:
                self.assertIn(b"interrupted before the reference was done", err)


class Chats(WithModel):
    """Conversations: the template beside the tokenizer, its special tokens, tools, variables, other templates."""

    def setUp(self):
        self.chat = tempfile.mkdtemp(dir=self.folder)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            os.symlink(os.path.join(self.model, name), os.path.join(self.chat, name))
        with open(os.path.join(self.chat, "tokenizer_config.json"), "w") as f:
            json.dump({"bos_token": {"content": "<s>"}, "chat_template": [
                {"name": "default", "template": "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
                                                "{% if add_generation_prompt %}a:{% endif %}{{ mood }}\n\n"},
                {"name": "tool_use", "template": "{{ tools|tojson }}"}]}, f)
        self.messages = json.dumps([{"role": "u", "content": "h\u00e9 <s>"}]).encode()

    def file(self, text):
        path = os.path.join(self.chat, f"file{len(os.listdir(self.chat))}")
        with open(path, "wb") as f:
            f.write(text)
        return path

    def test_template(self):
        whole = "<s>u:h\u00e9 <s>\na:\n".encode()
        path = self.file(self.messages)
        self.assertEqual(self.good("template", self.chat, "--messages", path), whole)
        self.assertEqual(self.good("template", self.chat, "--messages", "-", stdin=self.messages), whole)
        self.assertEqual(self.good("template", self.chat, "--messages", path, "--no-generation-prompt"), whole[:-3] + b"\n")
        self.assertEqual(json.loads(self.good("template", self.chat, "--messages", path, "--json"))["text"], whole.decode())
        variables = self.file(b'{"mood": "!"}')
        self.assertEqual(self.good("template", self.chat, "--messages", path, "--variables", variables), whole[:-1] + b"!\n")
        tools = self.file(b'[{"name": "f"}]')
        self.assertEqual(self.good("template", self.chat, "--messages", path, "--tools", tools), b'[{"name": "f"}]')
        other = self.file(b"{{ messages|length }}")
        self.assertEqual(self.good("template", self.chat, "--messages", path, "--template", other), b"1")
        store = os.path.join(self.chat, "store")
        self.good("pack", self.chat, "-o", store)
        self.assertEqual(self.good("template", store, "--messages", path), whole)
        self.assertEqual(self.good("template", store, "--messages", path, "--tools", tools), b'[{"name": "f"}]')

    def test_run(self):
        path = self.file(self.messages)
        prompt = self.good("template", self.chat, "--messages", path).decode()
        ids = self.good("tokenize", self.chat, "--no-special", "-p", prompt).decode().strip()
        self.assertTrue(ids.startswith("262,"))
        common = ("-n", "5", "--memory", MEMORY, "--ignore-eos", "--json")
        one = json.loads(self.good("run", self.chat, "--messages", path, *common))
        two = json.loads(self.good("run", self.chat, "--ids", ids, *common))
        self.assertEqual(one["ids"], two["ids"])

    def test_refusals(self):
        path = self.file(self.messages)
        self.bad(2, "expected --messages FILE", "template", self.chat)
        self.bad(2, "found several", "run", self.chat, "--messages", path, "-p", "x")
        self.bad(2, "standard input is read", "template", self.chat, "--messages", "-", "--tools", "-", stdin=self.messages)
        self.bad(1, "/nowhere", "template", self.chat, "--messages", "/nowhere")
        self.bad(2, ("messages: line 1", "expected JSON"), "template", self.chat, "--messages", "-", stdin=b"[")
        self.bad(1, "expected an array of objects", "template", self.chat, "--messages", "-", stdin=b"{}")
        self.bad(1, "message 0: expected an object", "template", self.chat, "--messages", "-", stdin=b"[1]")
        wrong = self.file(b"\n{{ nope.x }}")
        self.bad(1, "chat template, line 2: 'nope' is undefined", "template", self.chat, "--messages", path, "--template", wrong)
        self.bad(1, "has no chat template", "template", self.model, "--messages", path)
        self.bad(1, "tokenizer", "template", self.mute, "--messages", path)


class Texts(WithModel):
    def test_round_trip(self):
        texts = ["", "the", "in the sand", "é€😀", "a\nb\tc", "nul\0inside", "  spaces  ", "<s>"]
        lines = "".join(json.dumps(t) + "\n" for t in texts).encode()
        ids = self.good("tokenize", self.model, "--jsonl", "--plain", stdin=lines)
        self.assertEqual(len(ids.splitlines()), len(texts))
        back = self.good("detokenize", self.model, "--jsonl", stdin=ids)
        self.assertEqual([json.loads(line) for line in back.splitlines()], texts)

    def test_one_text(self):
        self.assertEqual(self.good("tokenize", self.model, "-p", "in the"), b"259,258\n")
        self.assertEqual(self.good("tokenize", self.model, stdin=b"in the"), b"259,258\n")
        self.assertEqual(self.good("detokenize", self.model, "--ids", "259,258"), b"in the")
        self.assertEqual(self.good("detokenize", self.model, stdin=b"[259, 258]\n"), b"in the")
        self.assertEqual(self.good("tokenize", self.model, "-p", "<s>"), b"262\n")
        self.assertEqual(self.good("detokenize", self.model, "--ids", "262,97", "--special"), b"<s>a")
        self.assertEqual(self.good("detokenize", self.model, "--ids", "262,97"), b"a")
        self.assertEqual(json.loads(self.good("tokenize", self.model, "-p", "in", "--json"))["ids"], [259])

    def test_special_tokens(self):
        whole = [int(i) for i in self.good("tokenize", self.model, "-p", "<s>a").split(b",")]
        plain = [int(i) for i in self.good("tokenize", self.model, "-p", "<s>a", "--plain").split(b",")]
        self.assertEqual(whole, [262, 97])
        self.assertNotIn(262, plain)
        self.assertEqual(self.good("tokenize", self.model, "--jsonl", stdin=b'"<s>a"\n\n"a"\n'), b"[262,97]\n[97]\n")
        self.assertEqual(self.good("tokenize", self.model, "--jsonl", "--plain", stdin=b'"<s>a"\n'),
                         json.dumps(plain, separators=(",", ":")).encode() + b"\n")
        self.bad(2, "--jsonl", "tokenize", self.model, "--jsonl", "-p", "a")

    def test_no_special(self):
        """A folder of a tokenizer alone, whose template puts tokens around a text."""
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "tokenizer", "glm4")
        with_them = self.good("tokenize", folder, "-p", "the").strip().split(b",")
        without = self.good("tokenize", folder, "-p", "the", "--no-special").strip().split(b",")
        self.assertEqual(with_them[2:], without)
        self.assertEqual(self.good("tokenize", folder, "--jsonl", "--no-special", stdin=b'"the"\n'),
                         b"[" + b",".join(without) + b"]\n")
        ids = b",".join(with_them).decode()
        self.assertEqual(self.good("detokenize", folder, "--ids", ids), b"the")
        self.assertEqual(self.good("detokenize", folder, "--ids", ids, "--special"), b"[gMASK]<sop>the")
        self.assertEqual(self.good("detokenize", folder, "--ids", ids, "--special", "--no-special"), b"the")

    def test_wrong_lines_are_named(self):
        self.bad(1, "line 2", "tokenize", self.model, "--jsonl", stdin=b'"a"\n5\n')
        self.bad(1, "line 1", "tokenize", self.model, "--jsonl", stdin=b'"a\n')
        self.bad(1, "line 1", "detokenize", self.model, "--jsonl", stdin=b'["a"]\n')
        self.bad(1, "'x", "detokenize", self.model, stdin=b"1 2 x")


class Stores(WithModel):
    def test_pack_verify_run(self):
        store = self.path("store")
        told = json.loads(self.good("pack", self.model, "-o", store, "--json"))
        self.assertGreaterEqual(told["bytes_written"], self.weights)
        self.bad(2, "whole store already", "pack", self.model, "-o", store)
        self.assertIn("whole", self.good("verify", store).decode())
        self.assertEqual(self.logits(model=store)[1], self.logits()[1])
        layers = os.path.join(store, "layers")
        victim = os.path.join(layers, sorted(os.listdir(layers))[1])
        with open(victim, "r+b") as f:
            f.seek(-100, os.SEEK_END)
            byte = f.read(1)
            f.seek(-100, os.SEEK_END)
            f.write(bytes([byte[0] ^ 1]))
        self.bad(1, os.path.basename(victim), "verify", store)

    def test_calibrate(self):
        """By a text: other bytes than by the weights alone, the same whatever the memory, and a budget that holds."""
        text = self.path("calibrate.txt")
        with open(text, "w") as f:
            f.write("the thin sand and the band in the hand " * 60)
        stores = {}
        for name, more in (("plain", []), ("by", ["--calibrate", text]),
                           ("again", ["--calibrate", text, "--memory", "64M", "--threads", "1"])):
            told = json.loads(self.good("pack", self.model, "-o", self.path(name), "--dtype", "bits=5", "--json", *more))
            self.assertLess(told["tensor_bytes_after"], 0.36 * told["tensor_bytes_before"])
            if "--memory" in more:
                self.assertLess(told["peak_rss_bytes"], 64 << 20)
            folder = os.path.join(self.path(name), "layers")
            stores[name] = b"".join(p.read_bytes() for p in sorted(pathlib.Path(folder).iterdir()))
        self.assertEqual(stores["by"], stores["again"])
        self.assertNotEqual(stores["by"], stores["plain"])
        self.good("verify", self.path("by"))
        self.bad(2, "nothing is quantised", "pack", self.model, "-o", self.path("no"), "--calibrate", text)
        self.bad(2, "nothing is quantised", "pack", self.model, "-o", self.path("no"), "--calibrate", text, "--dtype", "packed")
        self.bad(1, "gone.txt", "pack", self.model, "-o", self.path("no"), "--calibrate", self.path("gone.txt"), "--dtype", "q8_0")
        self.bad(2, "at least 2 tokens", "pack", self.model, "-o", self.path("no"), "--calibrate", os.devnull, "--dtype", "q8_0")
        self.bad(1, "tokenizer", "pack", self.mute, "-o", self.path("no"), "--calibrate", text, "--dtype", "q8_0")
        self.bad(1, "expected at least", "pack", self.model, "-o", self.path("no"), "--calibrate", text, "--dtype", "q8_0",
                 "--memory", "2M")
        self.assertFalse(os.path.exists(self.path("no")))

    def test_types_by_pattern(self):
        store = self.path("mixed")
        text = self.good("pack", self.model, "-o", store, "--dtype", "q4_0,*.down=q8_0,layers[0-1].q=keep,head=packed").decode()
        self.assertRegex(text, r"bf16 +-> q4_0 +\d+ tensors .*\n(.*\n)*.*in all .*\n +most lost +\S+ +0\.\d{4}\n")
        told = json.loads(self.good("inspect", store, "--json"))
        types = {t["name"]: (t["dtype"], t["bits_per_weight"]) for t in told["tensors"]}
        self.assertEqual(types["model.layers.2.self_attn.q_proj.weight"], ("q4_0", 4.5))
        self.assertEqual(types["model.layers.1.self_attn.q_proj.weight"], ("bf16", 16))
        self.assertEqual(types["model.layers.5.mlp.down_proj.weight"], ("q8_0", 8.5))
        self.assertTrue(types["lm_head.weight"][0].startswith("bf16_packed"), types["lm_head.weight"])
        self.good("run", store, "-p", "the", "-n", "2", "--memory", MEMORY)
        for spec, word in (("q4_q", "q4_q"), ("q4_0,*.dwon=q8_0", "*.dwon"), ("q4_0,", "expected"), ("bits=1", "too few"),
                           ("size=1K", "too little"), ("q4_0,q8_0", "q8_0")):
            self.bad(2, word, "pack", self.model, "-o", self.path("no"), "--dtype", spec)
            self.assertFalse(os.path.exists(self.path("no")), spec)

    def test_what_is_quantised_already_is_kept(self):
        first, second = self.path("first"), self.path("second")
        self.good("pack", self.model, "-o", first, "--dtype", "q8_0,layers[1].*=packed")
        told = json.loads(self.good("pack", first, "-o", second, "--dtype", "q4_0", "--json"))
        self.assertEqual(told["kept"], 37)  # 44 matrices less the layer that was packed, which is rounded now
        text = self.good("pack", second, "-o", self.path("third"), "--dtype", "q4_0").decode()
        self.assertRegex(text, r"kept as it is: 44 matrices, .* \(\S+ is quantised already \.\.\.\)")

    def test_delete_original(self):
        source, store = self.path("doomed"), self.path("doomed.store")
        tiny_model.write(source)
        reference = self.logits(model=source)[1]
        self.good("pack", source, "-o", store, "--delete-original")
        self.assertFalse(os.path.exists(os.path.join(source, "model.safetensors")))
        self.assertEqual(self.logits(model=store)[1], reference)

    def test_interrupted_deleting_is_finished_by_the_same_command(self):
        """Killed at many moments, with the original partly gone: the same command ends with the whole store."""
        reference, deleted = None, 0
        for i in range(12):
            source, store = self.path(f"fading{i}"), self.path(f"fading{i}.store")
            tiny_model.write(source)
            reference = reference or self.logits(model=source)[1]
            p = subprocess.Popen([LAMINA, "pack", source, "-o", store, "--delete-original"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            time.sleep(0.004 * i)
            p.kill()
            p.wait()
            whole = os.path.exists(os.path.join(store, "manifest.json"))
            deleted += not os.path.exists(os.path.join(source, "model.safetensors"))
            if not whole or os.path.exists(os.path.join(source, "model.safetensors")):
                code, _, err = lamina("pack", source, "-o", store, "--delete-original")
                self.assertIn(code, (0, 2) if whole else (0,), err)
            self.good("verify", store)
            self.assertEqual(self.logits(model=store)[1], reference)


class Ending(WithModel):
    def start(self, *arguments, **more):
        return subprocess.Popen([LAMINA, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def test_interrupt_ends_with_statistics(self):
        for _ in range(5): # the least budget wanders by what libraries take, most of all in sanitized programs
            p = self.start("run", self.model, "-p", "and", "-n", "400", "--ignore-eos", "--json", "--memory", self.little,
                           "--faults", "delay=30000")
            time.sleep(1.5)
            p.send_signal(signal.SIGINT)
            out, err = p.communicate(timeout=60)
            if out or b"budget" not in err and b"do not fit" not in err:
                break
        self.assertEqual(p.returncode, 1, err)
        self.assertTrue(out, err)
        told = json.loads(out)
        self.assertEqual(told["finish_reason"], "interrupted")
        self.assertLess(len(told["ids"]), 400)
        self.assertGreater(told["bytes_read"], 0)

    def test_progress_on_a_terminal(self):
        """A slow disk: the line names the layer and goes away, and the text stays what it is."""
        arguments = ["run", self.model, "-p", "and", "-n", "3", "--ignore-eos", "--memory", self.little]
        text = self.good(*arguments).decode()
        pid, fd = pty.fork()
        if pid == 0:
            os.execv(LAMINA, [LAMINA, *arguments, "--faults", "delay=400000"])
        shown = b""
        while True:
            try:
                block = os.read(fd, 65536)
            except OSError:  # the other side has gone
                break
            if not block:
                break
            shown += block
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        os.close(fd)
        shown = shown.decode(errors="replace")
        self.assertRegex(shown, r"layer \d \(\d of 7\)  [\d.]+ [kMG]B/s  left ")
        shown = re.sub(r"\x1bD\x1b\[A\x1b7\x1b\[B\r.*?\x1b8|\x1b7\x1b\[B\r\x1b\[2K\x1b8|lamina: note: [^\n]*\n", "", shown,
                       flags=re.S)
        self.assertEqual(shown.split("\r\n[")[0], text.replace("\n", "\r\n"))

    def test_a_closed_pipe_ends_quietly(self):
        p = self.start("run", self.model, "-p", "and", "-n", "400", "--ignore-eos", "--memory", MEMORY)
        p.stdout.read(1)
        p.stdout.close()
        self.assertEqual(p.wait(timeout=60), 0)
        self.assertEqual(p.stderr.read(), b"")
        p.stderr.close()

    def test_a_full_disk_is_an_error(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "wb") as full:
            p = subprocess.run([LAMINA, "tokenize", self.model, "-p", "x"], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"No space left", p.stderr)

    def failing(self, kind, step, *arguments):
        """Fails the N-th, for N growing until nothing fails any more; every failure is clean. Returns the failures."""
        n, failures = 1, 0
        while n < 100000:
            code, _, err = lamina(*arguments, "--faults", f"{kind}={n}")
            self.assertIn(code, (0, 1), f"{arguments} {kind}={n}: {err}")
            if code == 0:
                return failures
            self.assertRegex(err, r"\A(lamina: note: [^\n]+\n)*lamina: [^\n]+\n\Z", f"{arguments} {kind}={n}")
            failures += 1
            n = n + 1 if n < 12 else n + max(1, n // step)
        self.fail("it never stopped failing")

    def test_failing_allocations(self):
        text = self.path("t.txt")
        with open(text, "w") as f:
            f.write("the sand and the land " * 4)
        for arguments in (("run", self.model, "-p", "the", "-n", "2", "--memory", MEMORY),
                          ("logits", self.model, "--ids", "1,2", "-o", self.path("f.npy"), "--memory", MEMORY),
                          ("eval", self.model, text, "--memory", MEMORY),
                          ("eval", self.model, text, "--against", self.model, "--memory", MEMORY),
                          ("inspect", self.model), ("plan", self.model, "--memory", MEMORY, "--disk", "1G"),
                          ("tokenize", self.model, "-p", "the land"), ("detokenize", self.model, "--ids", "97,98")):
            with self.subTest(command=arguments[0]):
                self.assertGreater(self.failing("alloc", 6, *arguments), 0)

    def test_failing_reads(self):
        self.assertGreater(self.failing("read", 3, "run", self.model, "--ids", "1,2", "-n", "2", "--memory",
                                        self.little), 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[1:]])
