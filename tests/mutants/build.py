"""Builds the copy with all mutants that compile."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from listing import TARGET

WEAVE = Path(__file__).resolve().parent / "weave"
# Tests run thousands of times: some optimization saves more than it takes.
PROFILE = {
    "CARGO_PROFILE_TEST_OPT_LEVEL": "1",
    "CARGO_PROFILE_TEST_DEBUG": "0",
    "CARGO_INCREMENTAL": "0",
}
OWN = re.compile(rb"/\*(\d+)<\*/|/\*>(\d+)\*/")


@dataclass
class Program:
    """One with tests."""

    name: str
    kind: str
    path: str
    # Where its tests are run.
    folder: Path
    package: str


def build(copy, home, mutants, packages):
    """Takes out what does not compile until the rest does. Returns the programs."""
    weave = weaver()
    known = Known(copy, home / "unviable.json")
    for mutant in mutants:
        mutant.unviable = known.get(mutant)
    numbered = {mutant.number: mutant for mutant in mutants}
    while True:
        viable = [mutant for mutant in mutants if mutant.switched]
        copy.restore({mutant.file for mutant in mutants} - {mutant.file for mutant in viable})
        answer = subprocess.run(
            [weave, copy.root, copy.path],
            input=json.dumps([mutant.for_weave() for mutant in viable]).encode(),
            stdout=subprocess.PIPE,
            check=True,
        )
        for number, reason in json.loads(answer.stdout)["refused"].items():
            mutant = numbered[int(number)]
            if reason == "binds names":
                # Nor would it compile by itself.
                mutant.unviable = reason
            else:
                mutant.unswitched = reason
        programs, errors, built = cargo_test(copy, home, packages)
        if built:
            known.keep()
            return programs
        wrong = {}
        for error in errors:
            for number in blamed(copy, error):
                wrong.setdefault(number, error["message"])
        if not wrong:
            sys.exit("it does not compile:\n" + "\n".join(error["rendered"] for error in errors))
        print(f"{len(wrong)} mutants do not compile", file=sys.stderr, flush=True)
        for number, message in wrong.items():
            numbered[number].unviable = message
            known.add(numbered[number])
            print(f"  #{number} {numbered[number].name}: {message}", file=sys.stderr, flush=True)


class Known:
    """What did not compile in earlier runs, as long as its file stays the same."""

    def __init__(self, copy, path):
        self.root = copy.root
        self.path = path
        self.messages = json.loads(path.read_text()) if path.exists() else {}

    def key(self, mutant):
        text = (self.root / mutant.file).read_bytes() + mutant.identity.encode()
        return hashlib.sha256(text).hexdigest()

    def get(self, mutant):
        return self.messages.get(self.key(mutant), "")

    def add(self, mutant):
        self.messages[self.key(mutant)] = mutant.unviable

    def keep(self):
        self.path.write_text(json.dumps(self.messages, indent=1))


def weaver():
    target = TARGET / "mutants/weave"
    command = ["cargo", "build", "--quiet", "--locked", "--manifest-path", WEAVE / "Cargo.toml"]
    subprocess.run([*command, "--target-dir", target], check=True)
    return target / "debug/weave"


def cargo_test(copy, home, packages):
    command = ["cargo", "test", "--all-features", "--tests", "--no-run"]
    command += [part for package in sorted(packages) for part in ("--package", package)]
    command.append("--message-format=json")
    if shutil.which("mold"):
        # There is much to link.
        command = ["mold", "-run", *command]
    env = {**os.environ, **PROFILE, "CARGO_TARGET_DIR": str(home / "build")}
    with (home / "build.log").open("wb") as log:
        done = subprocess.run(
            command, cwd=copy.path, env=env, stdout=subprocess.PIPE, stderr=log, check=False
        )
    programs, errors = [], {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["profile"]["test"]:
            if message["executable"]:
                target = message["target"]
                folder = Path(message["manifest_path"]).parent
                programs.append(
                    Program(
                        target["name"],
                        target["kind"][0],
                        message["executable"],
                        folder,
                        package_in(folder),
                    )
                )
        elif message["reason"] == "compiler-message" and message["message"]["level"] == "error":
            errors[message["message"]["rendered"]] = message["message"]
    if done.returncode and not errors:
        sys.exit((home / "build.log").read_text())
    return programs, list(errors.values()), done.returncode == 0


def package_in(folder):
    text = (folder / "Cargo.toml").read_text()
    return re.search(r'^name = "(.*)"', text, re.MULTILINE)[1]


def blamed(copy, error):
    """The numbers of the mutants that an error is about: those in whose own code it is, or
    else those it mentions, or else those on its lines."""
    spans = [span for span in error["spans"] for span in expansions(span)]
    primary = [span for span in spans if span["is_primary"]]
    for chosen in (primary, spans):
        numbers = {number for span in chosen for number in touched(copy, span, widened=False)}
        if numbers:
            return numbers
    return {number for span in spans for number in touched(copy, span, widened=True)}


def expansions(span):
    while span:
        yield span
        span = (span.get("expansion") or {}).get("span")


def touched(copy, span, widened):
    path = copy.path / span["file_name"]
    if not path.is_file():
        return
    text = path.read_bytes()
    start, end = span["byte_start"], span["byte_end"]
    if widened:
        start = text.rfind(b"\n", 0, start) + 1
        end = text.find(b"\n", end)
    opened = {}
    for found in OWN.finditer(text):
        if found[1]:
            opened[int(found[1])] = found.start()
        else:
            number = int(found[2])
            if opened[number] < end and start < found.end():
                yield number
