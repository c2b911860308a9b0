"""The mutants there are, by cargo-mutants, and a sample of them."""

import hashlib
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

VERSION = "27.1.0"
TARGET = Path(__file__).resolve().parents[2] / "target"


@dataclass
class Mutant:
    name: str
    package: str
    file: str
    genre: str
    span: dict
    replacement: str
    # The same wherever its function is moved to.
    identity: str
    number: int = 0
    # Why it has no switch, or why it is none.
    unswitched: str = ""
    unviable: str = ""
    outcome: str = ""
    by: str = ""

    @property
    def switched(self):
        return not self.unswitched and not self.unviable

    def for_weave(self):
        names = ("number", "file", "genre", "span", "replacement")
        return {name: getattr(self, name) for name in names}


def installed():
    """The tool's program, which is installed when missing."""
    tools = TARGET / "tools"
    program = tools / "bin/cargo-mutants"
    answer = program.exists() and subprocess.check_output([program, "mutants", "--version"])
    if not answer or VERSION.encode() not in answer:
        # Not optimized, which would take minutes more than all it is asked.
        command = ["cargo", "install", "cargo-mutants", "--version", VERSION, "--locked", "--debug"]
        places = ["--root", tools, "--target-dir", TARGET / "tools-build"]
        subprocess.run([*command, *places], check=True)
    return program


def mutants(root, home, folders, changed):
    call = [installed(), "mutants", "--list", "--json", "--workspace", "--dir", root]
    if changed:
        diff = home / "changed.diff"
        with diff.open("wb") as out:
            git = ["git", "diff", "--relative", changed, "--"]
            subprocess.run(git, cwd=root, stdout=out, check=True)
        call += ["--in-diff", diff]
    listed = subprocess.run(call, cwd=root, stdout=subprocess.PIPE, check=True).stdout
    found, seen = [], {}
    for one in json.loads(listed or b"[]"):
        if not any(within(part, one["file"]) for part in folders):
            continue
        function = (one.get("function") or {}).get("function_name", "")
        start = one["span"]["start"]
        described = one["name"].replace(f":{start['line']}:{start['column']}:", ":")
        key = (one["file"], function, described)
        seen[key] = seen.get(key, 0) + 1
        found.append(
            Mutant(
                one["name"],
                one["package"],
                one["file"],
                one["genre"],
                one["span"],
                one["replacement"],
                "\0".join([*key, str(seen[key])]),
            )
        )
    return found


@dataclass
class Sample:
    """So many mutants of some folders that compile, in an order that the seed decides."""

    label: str
    folders: list
    # All of them without it.
    count: int | None
    mutants: list = field(default_factory=list)

    def draw(self, mutants, seed):
        """The seed decides for each mutant by itself, so that a change to one function leaves
        the sample of all others as it is."""

        def place(mutant):
            return hashlib.sha256(f"{seed}\0{mutant.identity}".encode()).digest()

        inside = [one for one in mutants if any(within(part, one.file) for part in self.folders)]
        self.mutants = sorted(inside, key=place)
        if self.count is not None:
            # Some won't compile.
            del self.mutants[self.count * 4 // 3 + 10 :]

    def keep_viable(self):
        """Keeps the first so many that compile, with those before them that don't."""
        viable = 0
        for at, mutant in enumerate(self.mutants):
            if viable == self.count:
                del self.mutants[at:]
                break
            viable += not mutant.unviable

    def cut(self):
        """Keeps those up to the last that was tried."""
        tried = [at for at, mutant in enumerate(self.mutants) if mutant.outcome]
        del self.mutants[max(tried, default=-1) + 1 :]


def numbered(samples):
    """The mutants of all samples, each once and with a number."""
    mutants = {mutant.identity: mutant for sample in samples for mutant in sample.mutants}
    for number, mutant in enumerate(mutants.values(), start=1):
        mutant.number = number
    return list(mutants.values())


def in_turns(samples):
    """All mutants, each once, so that every sample comes to its end at the same time."""
    turns = [
        (at / len(sample.mutants), mutant)
        for sample in samples
        for at, mutant in enumerate(sample.mutants)
    ]
    ordered = sorted(turns, key=lambda turn: turn[0])
    return list({mutant.number: mutant for _, mutant in ordered}.values())


def within(folder, file):
    return file == folder or file.startswith(f"{folder}/")
