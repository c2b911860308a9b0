"""The copy of the workspace that mutants are woven into."""

import re
import shutil
import subprocess
from pathlib import Path

SWITCH = Path(__file__).resolve().parent / "switch"
# A program that a test starts without its environment must know its mutant all the same.
CLEARED = b".env_clear()"
KEPT = CLEARED + b'.envs(::std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MUTANT")))'


class Copy:
    def __init__(self, root, path):
        self.root = root
        self.path = path

    def refresh(self, tested, mutated, woven):
        """Takes over what has changed, but for the files that are to be woven. Only these
        packages have tests then, and only those know the switch."""
        listed = subprocess.check_output(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=self.root
        )
        names = {name for name in listed.decode().split("\0") if (self.root / name).is_file()}
        for name in sorted(names - woven):
            self.write(name, self.adapted(name, tested, mutated))
        lock = self.path / "Cargo.lock"
        for old in list(self.path.rglob("*")):
            name = str(old.relative_to(self.path))
            if old.is_file() and old != lock and name not in names:
                old.unlink()

    def restore(self, names):
        """Files that are not woven any more."""
        for name in names:
            self.write(name, (self.root / name).read_bytes())

    def adapted(self, name, tested, mutated):
        text = (self.root / name).read_bytes()
        if name.endswith(".rs"):
            return text.replace(CLEARED, KEPT)
        if Path(name).name == "Cargo.toml" and b"[package]" in text:
            return manifest(text.decode(), tested, mutated).encode()
        return text

    def write(self, name, text):
        """A file that stays as it is keeps its time, so that cargo lets it be."""
        path = self.path / name
        if path.exists() and path.read_bytes() == text:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
        shutil.copymode(self.root / name, path)


def manifest(text, tested, mutated):
    package = re.search(r'^name = "(.*)"', text, re.MULTILINE)[1]
    if package in mutated:
        switch = f'mutant_switch = {{ path = "{SWITCH}" }}\n'
        if "\n[dependencies]\n" in text:
            text = text.replace("\n[dependencies]\n", f"\n[dependencies]\n{switch}")
        else:
            text += f"\n[dependencies]\n{switch}"
    if package not in tested:
        tables = re.split(r"^(?=\[)", text, flags=re.MULTILINE)
        text = "".join(table for table in tables if not table.startswith("[[test]]"))
        text = text.replace("[package]\n", "[package]\nautotests = false\nautobins = false\n")
        if "\n[lib]\n" not in text:
            text += "\n[lib]\n"
        for kind in ("[lib]", "[[bin]]"):
            text = text.replace(f"\n{kind}\n", f"\n{kind}\ntest = false\n")
    return text
