#!/usr/bin/env python3
"""Crashes the digits, resumes them, and draws what the terminal showed.

The line of a crash is what a shell prints for it.

usage: docs/crash-and-resume.py PATH_OF_DIGITS > docs/crash-and-resume.svg
"""

import html
import os
import pty
import subprocess
import sys
import tempfile
import textwrap
import time

COLUMNS = 100
LINE_HEIGHT = 18
CHAR_WIDTH = 7.8
# Seconds that the longest pause may take in the picture.
LONGEST_PAUSE = 1.2
# How long the end is shown before it starts again.
SHOWN_AT_END = 6

RUNS = [
    ("# a run that is left alone", []),
    ("digits --save-freq 5 --epochs 4 --backup-dir other", ["--backup-dir", "other"]),
    ("# a run that crashes in epoch 3 ..", []),
    ("digits --save-freq 5 --epochs 4 --crash-at 3:20", ["--crash-at", "3:20"]),
    ("# .. and is started again", []),
    ("digits --save-freq 5 --epochs 4", []),
]


def run(program, arguments, directory):
    """The lines that the program prints to a terminal, each with the seconds since the one before."""
    lead, follow = pty.openpty()
    process = subprocess.Popen(
        [program, "--save-freq", "5", "--epochs", "4", *arguments],
        cwd=directory,
        stdin=follow,
        stdout=follow,
        stderr=follow,
        env={**os.environ, "COLUMNS": str(COLUMNS)},
    )
    os.close(follow)
    text, lines, since = b"", [], time.monotonic()
    while True:
        try:
            read = os.read(lead, 4096)
        except OSError:
            break
        if not read:
            break
        text += read
        while b"\n" in text:
            line, text = text.split(b"\n", 1)
            lines.append((time.monotonic() - since, line.decode().rstrip("\r")))
            since = time.monotonic()
    if process.wait() < 0:
        lines.append((0.3, "Aborted (core dumped)"))
    return lines


def wrap(line):
    return textwrap.wrap(line, COLUMNS, subsequent_indent="  ") or [""]


def kind(line):
    if line.startswith("#"):
        return "note"
    if line.startswith("$"):
        return "command"
    if line.startswith("digest"):
        return "digest"
    if line.startswith("Aborted"):
        return "crash"
    return "output"


def record(program):
    """Each line of the picture, and at what second it appears."""
    shown, now = [], 0.5
    with tempfile.TemporaryDirectory() as directory:
        for command, arguments in RUNS:
            is_note = command.startswith("#")
            shown.append((now, command if is_note else f"$ {command}"))
            now += 0.8
            if is_note:
                continue
            for pause, line in run(program, arguments, directory):
                now += min(pause, LONGEST_PAUSE)
                shown += [(now, part) for part in wrap(line.replace(directory, "~"))]
            now += 1.0
    return shown, now + SHOWN_AT_END


def draw(shown, end):
    height = LINE_HEIGHT * (len(shown) + 2)
    width = int(CHAR_WIDTH * COLUMNS) + 32
    rows = []
    for row, (at, line) in enumerate(shown):
        share = 100 * at / end
        rows.append(
            f"<style>@keyframes l{row} {{ 0%, {share:.2f}% {{ opacity: 0 }} {share + 0.01:.2f}%, 100% {{ opacity: 1 }} }} "
            f".l{row} {{ animation: l{row} {end:.1f}s infinite }}</style>"
            f'<text class="{kind(line)} l{row}" x="16" y="{LINE_HEIGHT * (row + 2)}">{html.escape(line)}</text>'
        )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">
<title>A training crashes and resumes, and ends with the digest of an uninterrupted run</title>
<style>
rect {{ fill: #1b1f24 }}
text {{ font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #d0d7de; white-space: pre }}
.note {{ fill: #8b949e }}
.command {{ fill: #ffffff; font-weight: bold }}
.digest {{ fill: #7ee787 }}
.crash {{ fill: #ff7b72 }}
@media (prefers-reduced-motion: reduce) {{ text {{ animation: none !important }} }}
</style>
<rect width="{width}" height="{height}" rx="8"/>
{chr(10).join(rows)}
</svg>
"""


sys.stdout.write(draw(*record(os.path.abspath(sys.argv[1]))))
