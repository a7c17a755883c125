"""Checks that the shells complete the command line and that `man` reads its pages. Each shell runs in a terminal of its own,
with the completions that the program prints for it. The script types a line and TAB, as a person would.

    shells.py PROGRAM SHELL…    a SHELL is bash, zsh, fish, or man
"""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

# The text typed before TAB, and the completions that must appear. No completion is part of the typed text.
CASES = [
    ("vinops jobs ", ["requeue", "cancel", "run-now"]),
    ("vinops jobs list --", ["--kind", "--state", "--json"]),
    ("vinops jobs list --state ", ["available", "discarded"]),
    ("vinops source reset-", ["breaker"]),
]
READY = "READY>"
# Longer than any shell takes, for busy machines.
TIMEOUT_SECONDS = 20

# The command of each shell and its set-up lines. The last line sets the prompt, which shows that the shell is ready.
SHELLS = {
    "bash": (["bash", "--noprofile", "--norc", "-i"], ["bind 'set completion-query-items 0'", "source {script}", "PS1={ready}"]),
    "zsh": (
        ["zsh", "-f", "-i"],
        ["fpath=({folder} $fpath)", "LISTMAX=1000", "autoload -Uz compinit && compinit -u -D", "PS1={ready}"],
    ),
    "fish": (["fish", "--no-config", "-i"], ["source {script}", "function fish_prompt; echo {ready}; end"]),
}
# bash lists at the second TAB. At the first it only completes the common prefix.
TAB = {"bash": "\t\t", "zsh": "\t", "fish": "\t"}


class Terminal:
    def __init__(self, command, folder):
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": folder, "TERM": "xterm", "LANG": "C.UTF-8"}
        self.process, self.end = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        # Large enough that no line is wrapped and no pager asks.
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 200, 200, 0, 0))
        self.seen = ""

    def types(self, text):
        os.write(self.end, text.encode())

    def shows(self, words, after=0):
        """Waits for all of the words in the output. Returns false on timeout."""
        until = time.monotonic() + TIMEOUT_SECONDS
        while not all(word in self.seen[after:] for word in words):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.end], [], [], left)[0]:
                return False
            try:
                self.seen += os.read(self.end, 1 << 16).decode(errors="replace")
            except OSError:  # the terminal is closed
                return False
        return True

    def close(self):
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.end)


def complete(program, shell):
    command, lines = SHELLS[shell]
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(program, f"{folder}/vinops")
        script = f"{folder}/_vinops"
        with open(script, "wb") as file:
            file.write(subprocess.check_output([program, "completions", shell]))
        for typed, wanted in CASES:
            terminal = Terminal(command, folder)
            try:
                # Written in two parts, so that the line that sets the prompt is not mistaken for the prompt.
                for line in lines:
                    terminal.types(line.format(folder=folder, script=script, ready="READY''\\>") + "\n")
                assert terminal.shows([READY]), f"{shell} shows no prompt:\n{terminal.seen}"
                begun = len(terminal.seen)
                terminal.types(typed + TAB[shell])
                assert terminal.shows(wanted, begun), f"{shell}: {typed!r} TAB does not offer {wanted}:\n{terminal.seen[begun:]}"
            finally:
                terminal.close()
    print(f"{shell} completes:", *(f"{typed.strip()} {'|'.join(wanted)};" for typed, wanted in CASES))


def man(program):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.check_call([program, "man", "--out", folder])
        pages = sorted(os.listdir(folder))
        assert "vinops-jobs-requeue.1" in pages, pages
        for page in pages:
            read = subprocess.run(
                ["man", "--warnings", "-l", f"{folder}/{page}"],
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "MANPAGER": "cat", "MANWIDTH": "100"},
                capture_output=True,
                text=True,
            )
            assert read.returncode == 0 and not read.stderr, f"{page}: {read.stderr}"
            assert "SYNOPSIS" in read.stdout and "vinops" in read.stdout, f"{page}:\n{read.stdout}"
        print(f"man reads {len(pages)} pages without a warning")


program, *shells = sys.argv[1:]
for shell in shells:
    try:
        man(program) if shell == "man" else complete(program, shell)
    except AssertionError as wrong:
        sys.exit(str(wrong))
