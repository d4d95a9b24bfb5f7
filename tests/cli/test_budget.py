#!/usr/bin/env python3
"""The budget is a limit: the peak resident size of the process, as the system accounts it, for every command and for
budgets from the least that works to more than the model. And the plan says beforehand what that peak will be.

    test_budget.py build/lamina          (standard library only)"""
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest

LAMINA = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "build/lamina"
MIB = 1 << 20
TOLERANCE = 0.03  # of the peak; and never less than 4 MiB: what is set aside for stacks, scratch and rare paths is not all touched


def floor():
    """What a child's peak cannot read below: this process's own."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_of(*arguments):
    """(exit code, standard output, standard error, peak resident bytes) of one process."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        p = subprocess.Popen([LAMINA, *map(str, arguments)], stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        return p.returncode, out.read(), err.read().decode(errors="replace"), usage.ru_maxrss * 1024


class Budget(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(LAMINA, "rb") as program:
            if b"__asan_init" in program.read():
                raise unittest.SkipTest("AddressSanitizer keeps memory of its own")
        cls.folder = tempfile.mkdtemp(prefix="lamina-budget-")
        cls.model = os.path.join(cls.folder, "model")
        # In a process of its own: a child's peak begins with what its parent holds when it is made.
        make = ("import sys, tiny_model; tiny_model.CONFIG.update(hidden_size=1024, intermediate_size=4096, "
                "num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2, head_dim=128); "
                "print(tiny_model.write(sys.argv[1]))")
        cls.bytes = int(subprocess.check_output([sys.executable, "-c", make, cls.model], cwd=os.path.dirname(__file__) or "."))
        cls.ids = ",".join(str(i * 37 % 250) for i in range(20))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def least(self, *more):
        code, _, err, _ = peak_of("logits", self.model, "--ids", self.ids, "-o", self.path("x.npy"), "--memory", "1M", *more)
        self.assertEqual(code, 1, err)
        found = re.search(r"at least ([0-9.]+) MiB", err)
        self.assertTrue(found, err)
        return int(float(found.group(1)) * MIB) + MIB

    def path(self, name):
        return os.path.join(self.folder, name)

    def budgets(self):
        return [self.least(), 48 * MIB, 100 * MIB, 200 * MIB, self.bytes + 128 * MIB]

    def within(self, budget, peak, arguments):
        if budget > floor():
            self.assertLessEqual(peak, budget, f"{arguments}: peak {peak / MIB:.1f} MiB of {budget / MIB:.1f}")

    def test_every_command_stays_below(self):
        self.assertGreater(self.bytes, 200 * MIB)
        text = self.path("text.txt")
        with open(text, "w") as f:
            f.write("the land and the sand " * 4)
        for budget in self.budgets():
            for arguments in (["run", self.model, "--ids", self.ids, "-n", 3, "--ignore-eos"],
                              ["logits", self.model, "--ids", self.ids, "-o", self.path("x.npy")],
                              ["eval", self.model, text, "--against", self.model, "--context", 20],
                              ["plan", self.model, "--context", 32], ["bench", self.model, "--rounds", 1, "--seconds", 0.2]):
                arguments = [*arguments, "--memory", budget]
                code, _, err, peak = peak_of(*arguments)
                if arguments[0] in ("eval", "plan", "bench") and code == 1 and "too small" in err:
                    continue # it needs more than the least of the others
                self.assertEqual(code, 0, f"{arguments}: {err}")
                self.within(budget, peak, arguments)

    def test_the_plan_says_the_peak(self):
        for budget in self.budgets():
            code, out, err, peak = peak_of("run", self.model, "--ids", self.ids, "-n", 4, "--ignore-eos", "--memory", budget,
                                           "--json")
            self.assertEqual(code, 0, err)
            result = json.loads(out)
            predicted = result.get("predicted_peak_bytes")
            self.assertIsNotNone(predicted, result.keys())
            peak = result["peak_rss_bytes"] if peak <= floor() else peak
            wrong = abs(peak - predicted)
            print(f"budget {budget / MIB:.1f} MiB: predicted {predicted / MIB:.1f}, peak {peak / MIB:.1f}, "
                  f"{100 * wrong / peak:.1f} %")
            self.assertLessEqual(wrong, max(TOLERANCE * peak, 4 * MIB))
            self.within(budget, peak, ["run"])

    def test_packing_stays_below(self):
        for memory in (32 * MIB, 64 * MIB):
            store = self.path(f"store{memory}")
            code, _, err, peak = peak_of("pack", self.model, "-o", store, "--memory", memory)
            self.assertEqual(code, 0, err)
            self.within(memory, peak, ["pack"])
            code, _, err, peak = peak_of("verify", store)
            self.assertEqual(code, 0, err)
            self.within(64 * MIB, peak, ["verify"])


if __name__ == "__main__":
    unittest.main()
