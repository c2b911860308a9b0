"""Runs tests: all of them once without a mutant, then for each mutant those that reach it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

# A test that takes longer than this with a mutant than it did without hangs.
PATIENCE_S, PATIENCE_TIMES = 15, 5
HANGS_S = 600
TICK_S = 0.5
# Tests that a mutant meets one by one; the rest of each program then runs at once.
SINGLES = 12
# Longer ones always run alone.
TOGETHER_MAX_S = 5
# Of memory, and of each file, for a process that a mutant drives mad.
MEMORY_MAX = 12 << 30
FILE_MAX = 2 << 30
TAKES_NAMES = {}


@dataclass(eq=False)
class Test:
    program: object
    name: str
    took: float = 0.0
    reached: frozenset = frozenset()
    # Mutants it caught, of each file.
    caught: Counter = field(default_factory=Counter)

    def __str__(self):
        return f"{self.program.name}::{self.name}"


class Trials:
    def __init__(self, home, jobs, each_s, own_tests):
        self.home = home
        self.jobs = jobs
        self.each_s = each_s
        # Whether a mutant meets the tests of its own package alone.
        self.own_tests = own_tests
        self.tests = []
        self.broken = []
        self.slow = []
        shutil.rmtree(home / "scratch", ignore_errors=True)

    def baseline(self, programs, slow_s):
        """Runs every test without a mutant, or takes what is known of its program."""
        path = self.home / "baseline.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        tests = [Test(program, name) for program in programs for name in listed(program)]

        def measure(test):
            key = f"{test.program.path} {os.stat(test.program.path).st_mtime_ns} {test.name}"
            if known.get(key, {}).get("ended") != 0:
                known[key] = self.measure(test, slow_s)
            test.took = known[key]["took"]
            test.reached = frozenset(known[key]["reached"])
            return known[key]["ended"]

        with ThreadPoolExecutor(self.jobs) as pool:
            for count, (test, ended) in enumerate(zip(tests, pool.map(measure, tests)), start=1):
                kind = self.tests if ended == 0 else self.slow if ended is None else self.broken
                kind.append(test)
                if count % 50 == 0 or count == len(tests):
                    path.write_text(json.dumps(dict(known)))

    def measure(self, test, slow_s):
        reached = self.scratch() / "reached"
        ended, took, said = self.start([test], {"MUTANT_REACHED": str(reached)}, slow_s)
        if ended:
            print(f"{test} fails without a mutant:\n{said[-2000:]}", file=sys.stderr)
        numbers = sorted(map(int, reached.read_text().split())) if reached.exists() else []
        return {"ended": ended, "took": took, "reached": numbers}

    def run(self, mutants, until):
        """Tries each in turn, and yields it when its outcome is known; none after a moment."""

        def judge(mutant):
            in_time = until is None or time.monotonic() < until
            return self.judge(mutant) if in_time else mutant

        with ThreadPoolExecutor(self.jobs) as pool:
            for judged in as_completed([pool.submit(judge, mutant) for mutant in mutants]):
                if judged.result().outcome:
                    yield judged.result()

    def judge(self, mutant):
        tests = {test for test in self.tests if self.meets(test, mutant)}
        mutant.outcome = "missed" if tests else "unreached"
        left = self.each_s
        for together in self.in_turns(mutant, tests):
            took = sum(test.took for test in together)
            if took > left:
                mutant.outcome, mutant.by = "unfinished", f"{len(tests)} tests not run"
                break
            tests.difference_update(together)
            limit = PATIENCE_S + PATIENCE_TIMES * took
            ended, took, _ = self.start(together, {"MUTANT": str(mutant.number)}, limit)
            left -= took
            if ended != 0:
                mutant.outcome = "caught" if ended is not None else "timeout"
                mutant.by = " or ".join(map(str, together[:3]))
                for test in together:
                    test.caught[mutant.file] += 1 / len(together)
                break
        return mutant

    def in_turns(self, mutant, tests):
        """First one by one those likely to catch it soon, as others of its file; then the
        others of each program together, as starting a test takes longer than most tests."""
        tests = set(tests)
        for _ in range(min(SINGLES, len(tests))):
            test = min(tests, key=lambda one: one.took / (1 + 4 * one.caught[mutant.file]))
            tests.remove(test)
            yield [test]
        groups = {}
        for test in tests:
            joins = test.took <= TOGETHER_MAX_S and takes_names(test.program)
            groups.setdefault(test.program.path if joins else test, []).append(test)
        yield from sorted(groups.values(), key=lambda one: sum(test.took for test in one))

    def meets(self, test, mutant):
        of_own = not self.own_tests or test.program.package == mutant.package
        return of_own and mutant.number in test.reached

    def scratch(self):
        """An empty folder of this thread."""
        path = self.home / "scratch" / str(threading.get_ident())
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def start(self, tests, variables, limit_s):
        """How tests of one program ended, which is None if they did not, their seconds, and
        what they said."""
        scratch = self.scratch()
        log = scratch / "log"
        temporary = scratch / "tmp"
        temporary.mkdir()
        program = tests[0].program
        env = {
            **os.environ,
            "CARGO_MANIFEST_DIR": str(program.folder),
            "TMPDIR": str(temporary),
            **variables,
        }
        command = ["prlimit", f"--as={MEMORY_MAX}", f"--fsize={FILE_MAX}", "--core=0"]
        command += [program.path, "--exact", *(test.name for test in tests)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=program.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        ended, took, slept = wait(process, limit_s)
        # With what it started and left.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        if slept and ended != 0:
            # Its own times ran out meanwhile.
            return self.start(tests, variables, limit_s)
        return ended, took, log.read_text(errors="replace")


def wait(process, limit_s):
    """How a process ended, which is None if it did not, its seconds but for those in which
    it waited for a processor that others had, and whether the machine slept or was stopped
    meanwhile."""
    took = 0
    slept = False
    waited = {}
    while took < limit_s:
        started = time.monotonic()
        try:
            ended = process.wait(TICK_S)
        except subprocess.TimeoutExpired:
            ended = None
        passed = time.monotonic() - started
        slept |= passed > TICK_S + 5
        before, waited = waited, queued(process.pid)
        longest = max((waited[one] - before.get(one, 0) for one in waited), default=0)
        took += max(min(passed, TICK_S) - longest, 0)
        if ended is not None:
            return ended, took, slept
    return None, took, slept


def queued(pid):
    """The seconds that each thread of a process has waited for a processor so far."""
    threads = {}
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            threads[path] = int(path.read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            pass  # It ended.
    return threads


def listed(program):
    command = [program.path, "--list", "--format", "terse"]
    lines = subprocess.check_output(command, cwd=program.folder, text=True).splitlines()
    return [line.removesuffix(": test") for line in lines if line.endswith(": test")]


def takes_names(program):
    """Whether a program with tests runs several that are named, as not every harness does."""
    if program.path not in TAKES_NAMES:
        command = [program.path, "--exact", "one", "other", "--list"]
        said = subprocess.run(command, cwd=program.folder, capture_output=True, check=False)
        TAKES_NAMES[program.path] = said.returncode == 0
    return TAKES_NAMES[program.path]
