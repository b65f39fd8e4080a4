#!/usr/bin/env python3
"""Manual pages and completions from the binary's own --help, so that they say what it does: help_pages.py SNUG FOLDER

Writes FOLDER/man1/snug*.1.gz, snug.bash, _snug (zsh) and snug.fish. An option that is not understood is an error.
"""

import gzip
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field

import completions

COLUMN = 30  # where descriptions begin
SPEC = re.compile(r"(?P<names>\S+?)(?: (?P<type>[A-Z]+.*?))?(?P<many> \.\.\.)?(?P<required> REQUIRED)?"
                  r"(?: \(Env:(?P<variable>\w+)\))?")
TYPE = re.compile(r"(?P<type>[A-Z]+)(?::(?P<check>\{[^}]*\}|[A-Z]+ in \[[^]]*\]|SIZE \[.*\]|[A-Z]+))?(?:=(?P<default>.*))?")


@dataclass
class Option:
    """Of an option or a positional argument."""
    names: list
    help: str
    type: str = ""  # "": a flag
    range: str = ""
    default: str = ""
    choices: list = field(default_factory=list)
    many: bool = False
    required: bool = False
    variable: str = ""


@dataclass
class Command:
    path: list  # ["snug", "eval", "ppl"]
    help: str = ""
    usage: str = ""
    aliases: list = field(default_factory=list)
    positionals: list = field(default_factory=list)
    options: list = field(default_factory=list)
    commands: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    examples: list = field(default_factory=list)

    @property
    def name(self):
        return self.path[-1]

    def all(self):
        yield self
        for command in self.commands:
            yield from command.all()


def rows(lines):
    """(left column, description) of a section's lines: a long left column has its description on the next line."""
    found = []
    for line, after in zip(lines, [*lines[1:], ""]):
        if line.startswith(" " * COLUMN):
            found[-1][1] = line.strip()
        elif after.startswith(" " * COLUMN):
            found.append([line.strip(), ""])
        else:
            found.append([line[:COLUMN].strip(), line[COLUMN:].strip()])
    return found


def option(left, text):
    spec = SPEC.fullmatch(left)
    kind = TYPE.fullmatch(spec["type"] or "A") if spec else None
    if not kind:
        raise ValueError(f"not understood: {left!r}")
    made = Option(spec["names"].split(","), text, many=bool(spec["many"]), required=bool(spec["required"]),
                  variable=spec["variable"] or "")
    if spec["type"]:
        made.type, made.default = kind["type"], kind["default"] or ""
        if (check := kind["check"] or "").startswith("{"):
            made.choices = check[1:-1].split(",")
        elif " in [" in check:
            made.range = check.partition(" in [")[2].rstrip("]").replace(" - ", " to ")
    return made


def read_help(snug, path):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SNUG_")}
    text = subprocess.run([snug, *path[1:], "--help"], env=clean, check=True, capture_output=True, text=True).stdout
    head, _, rest = text.partition("\nUsage: ")
    command = Command(path, help=head.strip())
    command.usage, *lines = rest.splitlines()
    sections, title = {}, None
    for line in lines:
        if re.fullmatch(r"[A-Z][a-z]+:", line):
            title = line[:-1]
            sections[title] = []
        elif line.startswith("  ") and title:
            sections[title].append(line)
        elif line:
            command.notes.append(line)
    for title, lines in sections.items():
        if title == "Positionals":
            command.positionals = [option(*row) for row in rows(lines)]
        elif title == "Options":
            command.options = [option(*row) for row in rows(lines)]
        elif title == "Subcommands":
            for left, _ in rows(lines):
                name, *aliases = left.split(", ")
                command.commands.append(read_help(snug, [*path, name]))
                command.commands[-1].aliases = aliases
        elif title in ("Example", "Examples"):
            command.examples = [line[2:] for line in lines]
        else:
            raise ValueError(f"a section that is not known: {title}")
    return command


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def manual(command, version):
    out = [f'.TH {"-".join(command.path).upper()} 1 "" "{version}" "User Commands"', ".SH NAME",
           f'{roff("-".join(command.path))} \\- {roff(command.help.removeprefix("snug: "))}', ".SH SYNOPSIS",
           f".B {roff(' '.join(command.path))}", roff(command.usage.removeprefix(" ".join(command.path)).strip())]
    if command.notes:
        out += [".SH DESCRIPTION", *map(roff, command.notes)]
    if command.commands:
        out.append(".SH COMMANDS")
        for c in command.commands:
            also = f" (also {', '.join(c.aliases)})" if c.aliases else ""
            out += [".TP", f".BR {roff('-'.join(c.path))} (1)", roff(c.help + also)]
    for title, options in (("ARGUMENTS", command.positionals), ("OPTIONS", command.options)):
        if options:
            out.append(f".SH {title}")
        for o in options:
            names = ", ".join(f"\\fB{roff(name)}\\fR" for name in o.names)
            notes = [f"One of {', '.join(o.choices)}."] if o.choices else []
            notes += [f"{label}: {text}." for label, text in
                      (("Range", o.range), ("Default", o.default), ("Variable", o.variable)) if text]
            value = f" \\fI{roff(o.type)}\\fR" if o.type and title == "OPTIONS" else ""
            out += [".TP", names + value, roff(o.help)]
            if notes:
                out += [".br", roff(" ".join(notes))]
    out += [".SH EXIT STATUS", "0: done; 1: it failed; 2: the command line is not right."]
    if command.examples:
        out += [".SH EXAMPLES", ".nf", *map(roff, command.examples), ".fi"]
    if len(command.path) > 1:
        out += [".SH SEE ALSO", f".BR {roff('-'.join(command.path[:-1]))} (1)"]
    return "\n".join(out) + "\n"


def main():
    snug, folder = os.path.abspath(sys.argv[1]), sys.argv[2]
    version = subprocess.run([snug, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    top = read_help(snug, ["snug"])
    os.makedirs(os.path.join(folder, "man1"), exist_ok=True)
    for command in top.all():
        page = gzip.compress(manual(command, version).encode(), mtime=0)
        with open(os.path.join(folder, "man1", "-".join(command.path) + ".1.gz"), "wb") as f:
            f.write(page)
    for name, text in completions.scripts(top).items():
        with open(os.path.join(folder, name), "w") as f:
            f.write(text)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, subprocess.CalledProcessError) as e:
        sys.exit(f"error: {e}")
