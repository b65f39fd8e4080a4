"""Completions for bash, zsh and fish of commands as help_pages.py reads them."""

FOLDERS = {"--kv-dir", "--sessions"}
FILES = {"-f", "--file", "--text", "--config", "--template", "--svg", "IN", "OUT"}
MADE = "made from its --help"


def value_of(option):
    """What completes its value: a list of words, "files", "folders", "models" or "" (nothing is known)."""
    if option.choices:
        return option.choices
    names = set(option.names)
    if names & FOLDERS:
        return "folders"
    if names & FILES:
        return "files"
    return "models" if "MODEL" in names else ""


def scripts(top):
    return {"snug.bash": bash(top), "_snug": zsh(top), "snug.fish": fish(top)}


def words(items):
    return " ".join(items)


# --- bash

BASH = r'''# bash completion of snug, MADE
_snug() {
  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} path=snug i
  # --name=value comes as three words.
  if [[ $current == = ]]; then
    current=
  elif [[ $before == = ]]; then
    before=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case "$path ${COMP_WORDS[i]}" in
PATHS
    esac
  done
  local words=
  case "$path $before" in
VALUES
    *) case $path in
COMMANDS
    esac ;;
  esac
  if [[ $current != -* ]]; then
    case $words in
      MODELS*) words=$("${COMP_WORDS[0]}" list 2>/dev/null | cut -d ' ' -f 1) ;;
      -*) words= ;;
    esac
  fi
  words=${words#MODELS}
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o bashdefault -o default -F _snug snug
'''


def bash(top):
    paths, values, commands = [], [], []
    for c in top.all():
        path = words(c.path)
        for child in c.commands:
            names = "|".join(f'"{path} {name}"' for name in [child.name, *child.aliases])
            paths.append(f"      {names}) path='{words(child.path)}' ;;")
        for o in c.options:
            if not o.type:
                continue
            patterns, value = "|".join(f'"{path} {name}"' for name in o.names), value_of(o)
            if isinstance(value, list):
                action = f"words='{words(value)}'"
            elif value == "folders":
                action = 'compopt -o filenames; COMPREPLY=($(compgen -d -- "$current")); return'
            elif value == "files":
                action = "return"  # bash's default
            else:
                action = "compopt +o bashdefault +o default; return"
            values.append(f"    {patterns}) {action} ;;")
        options = words(name for o in c.options for name in o.names)
        if c.commands:
            listed = words(child.name for child in c.commands) + " " + options
        else:
            listed = ("MODELS " if any(value_of(p) == "models" for p in c.positionals) else "") + options
        commands.append(f"      '{path}') words='{listed}' ;;")
    text = BASH.replace("MADE", MADE)
    for name, lines in (("PATHS", paths), ("VALUES", values), ("COMMANDS", commands)):
        text = text.replace(name + "\n", "\n".join(lines) + "\n")
    return text


# --- zsh

ZSH = r'''#compdef snug
# zsh completion of snug, MADE
_snug_models() {
  local -a models
  models=(${${(f)"$(_call_program models snug list 2>/dev/null)"}%% *})
  _describe model models
  _files -g '*.gguf'
}
'''


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def zsh_text(text):
    for c in "\\[]:":
        text = text.replace(c, "\\" + c)
    return text


def zsh_value(option):
    value = value_of(option)
    kind = zsh_text(option.type if option.names[0].startswith("-") else option.names[0])
    if isinstance(value, list):
        return f":{kind}:({words(value)})"
    return f":{kind}:" + {"files": "_files", "folders": "_files -/", "models": "_snug_models"}.get(value, " ")


def zsh(top):
    text = ZSH.replace("MADE", MADE)
    for c in reversed(list(top.all())):
        specs = []
        for o in c.options:
            about = f"[{zsh_text(o.help)}]" + (zsh_value(o) if o.type else "")
            for name in o.names:
                sign = ("*" if o.many else "(" + words(o.names) + ")")
                equals = "=" if o.type and name.startswith("--") else ""
                specs.append(quoted(f"{sign}{name}{equals}{about}"))
        if c.commands:
            specs += ["'1: :->command'", "'*:: :->rest'"]
        else:
            for i, p in enumerate(c.positionals):
                value = zsh_value(p) if value_of(p) else f":{p.names[0]}:_default"
                specs.append(quoted(("*" if p.many else str(i + 1)) + value))
        function = "_" + "_".join(c.path).replace("-", "_")
        text += f"{function}() {{\n"
        if c.commands:
            text += "  local state line curcontext=$curcontext\n  local -a commands\n"
        text += "  _arguments -s" + (" -C" if c.commands else "") + "".join(f" \\\n    {spec}" for spec in specs) + "\n"
        if c.commands:
            listed = "".join(f"\n        {quoted(child.name + ':' + zsh_text(child.help))}" for child in c.commands)
            text += f"  case $state in\n    command)\n      commands=({listed})\n      _describe command commands ;;\n"
            text += "    rest)\n      case $words[1] in\n"
            for child in c.commands:
                names = "|".join([child.name, *child.aliases])
                text += f"        {names}) {'_' + '_'.join(child.path).replace('-', '_')} ;;\n"
            text += "      esac ;;\n  esac\n"
        text += "}\n"
    return text + '_snug "$@"\n'


# --- fish

def fish_text(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fish(top):
    lines = [f"# fish completion of snug, {MADE}"]
    for c in top.all():
        seen = [f"__fish_seen_subcommand_from {words([name, *aliases])}" for name, aliases in levels(top, c)]
        if c.commands:
            others = words(name for child in c.commands for name in [child.name, *child.aliases])
            none_yet = fish_text("; and ".join([*seen, f"not __fish_seen_subcommand_from {others}"]))
            lines += [f"complete -c snug -n {none_yet} -f -a {child.name} -d {fish_text(child.help)}"
                      for child in c.commands]
        where = "; and ".join(seen) if seen else "__fish_use_subcommand"
        if any(value_of(p) == "models" for p in c.positionals):
            lines.append(f"complete -c snug -n {fish_text(where)} -a '(snug list 2>/dev/null | string split -f 1 \" \")'")
        for o in c.options:
            line = f"complete -c snug -n {fish_text(where)}"
            for name in o.names:
                line += f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}"
            value = value_of(o)
            if isinstance(value, list):
                line += f" -x -a {fish_text(words(value))}"
            elif value == "folders":
                line += " -x -a '(__fish_complete_directories)'"
            elif o.type:
                line += " -r" if value else " -x"
            lines.append(line + f" -d {fish_text(o.help)}")
    return "\n".join(lines) + "\n"


def levels(top, command):
    """Name and aliases of each command on the way from `top`."""
    found, at = [], top
    for name in command.path[1:]:
        at = next(c for c in at.commands if c.name == name)
        found.append((at.name, at.aliases))
    return found
