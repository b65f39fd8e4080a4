#!/usr/bin/env python3
"""Compares chat prompts rendered by snug with the same templates rendered by Python's jinja2.

    template_compare.py RENDERER FOLDER_OR_FILE... [--verbose]

RENDERER is the program `snug_render_template`. Templates are *.jinja files, or *.gguf files with a chat template (needs
the `gguf` package). jinja2 is set up as in transformers (`_compile_jinja_template`). Every template meets every
conversation below; where jinja2 raises, snug must raise as well. Exit code 1 if anything differs.
"""

import argparse
import collections
import datetime
import functools
import json
import pathlib
import subprocess
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class GenerationBlocks(jinja2.ext.Extension):
    """{% generation %} renders its body (transformers' AssistantTracker without the tracking)."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def _render(self, context, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return env


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather for a city.\nUse it for 'today' & \"tomorrow\" <only>.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name, e.g. Zürich"},
                "days": {"type": "integer", "minimum": 1, "maximum": 7, "default": 1},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "tags": {"type": "array", "items": {"type": "string"}, "description": "Labels"},
                "where": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}},
                          "required": ["lat"]},
                "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "several": {"type": ["string", "null"], "nullable": True},
            },
            "required": ["city"],
        },
        "return": {"type": "object", "description": "the weather", "properties": {"temp": {"type": "number"}}},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "Tells the time.",
                                          "parameters": {"type": "object", "properties": {}}}}
ARGUMENTS = {"city": "Zürich", "days": 2, "tags": ["a", "b\n"], "where": {"lat": 47.4, "lon": -8.0}, "precise": True,
             "nothing": None, "tiny": 1e-07, "huge": 1e22}
ID = "abcdef123"


def tool_turn(arguments, content="", result="Sunny, 21.5 °C", **more):
    return [
        {"role": "system", "content": "You may use tools."},
        user("Weather in Zürich?"),
        assistant(content, tool_calls=[call("get_weather", arguments, id=ID)], **more),
        {"role": "tool", "name": "get_weather", "tool_call_id": ID, "content": result},
    ]


CHAT = [{"role": "system", "content": "You are helpful."}, user("Hi there"), assistant("Hello!"), user("How are you?")]
PARTS = [user([{"type": "text", "text": "What is"}, {"type": "text", "text": " this?"}])]
IMAGE = [user([{"type": "image", "url": "x.png"}, {"type": "text", "text": "What is this?"}])]
THOUGHT = [user("2+2?"), assistant("<think>\nAdd.\n</think>\n\n4"), user("And 3+3?")]
REASONED = [user("2+2?"), assistant("4", reasoning_content="Add them."), user("And 3+3?")]
TWO_CALLS = [
    user("Both?"),
    assistant(None, tool_calls=[call("get_weather", ARGUMENTS, id=ID), call("clock", {}, id="ghijkl456")]),
    {"role": "tool", "name": "get_weather", "tool_call_id": ID, "content": "Rain"},
    {"role": "tool", "name": "clock", "tool_call_id": "ghijkl456", "content": "12:00"},
    assistant("It rains at noon."),
    user("Thanks"),
]

# name: (messages, tools, add_generation_prompt, further variables)
CASES = {
    "user": ([user("Hello")], None, True, {}),
    "user, no generation prompt": ([user("Hello")], None, False, {}),
    "system and user": (CHAT[:2], None, True, {}),
    "several turns": (CHAT, None, True, {}),
    "no system, several turns": (CHAT[1:], None, True, {}),
    "ends with assistant": (CHAT[:3], None, False, {}),
    "unicode": ([{"role": "system", "content": "Réponds en français."}, user("日本語 😀 עברית\u00a0x\u2028y\x00 \x7f")], None,
                True, {}),
    "space around": ([{"role": "system", "content": "  s \n"}, user("\n\t hi  \n\n"), assistant("  a\n"), user(" b ")], None,
                     True, {}),
    "markup": ([user("<b>&amp;</b> {{ x }} {% if %} <|im_end|> </s> 'q' \"d\" \\n")], None, True, {}),
    "empty": ([user("")], None, True, {}),
    "empty system": ([{"role": "system", "content": ""}, user("x")], None, True, {}),
    "no content": ([user("x"), assistant(None), user("y")], None, True, {}),
    "missing content": ([{"role": "user"}], None, True, {}),
    "no messages": ([], None, True, {}),
    "parts": (PARTS, None, True, {}),
    "image": (IMAGE, None, True, {}),
    "parts with system": ([{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *PARTS], None, True, {}),
    "thinking on": (CHAT, None, True, {"enable_thinking": True}),
    "thinking off": (CHAT, None, True, {"enable_thinking": False}),
    "earlier thought": (THOUGHT, None, True, {}),
    "earlier thought, thinking off": (THOUGHT, None, True, {"enable_thinking": False}),
    "reasoning": (REASONED, None, True, {}),
    "reasoning effort": (REASONED, None, True, {"reasoning_effort": "high", "thinking": True}),
    "tools": (CHAT, [WEATHER, CLOCK], True, {}),
    "tools, no system": (CHAT[1:], [WEATHER], True, {}),
    "tools, empty list": (CHAT, [], True, {}),
    "tool call": (tool_turn(ARGUMENTS), [WEATHER], True, {}),
    "tool call, thinking off": (tool_turn(ARGUMENTS), [WEATHER], True, {"enable_thinking": False}),
    "tool call, text arguments": (tool_turn(json.dumps(ARGUMENTS)), [WEATHER], True, {}),
    "tool call, reasoning": (tool_turn({"city": "X"}, "Let me look.", reasoning_content="Tool!"), [WEATHER], True, {}),
    "tool result, object": (tool_turn({"city": "X"}, None, {"temp": 21.0, "ok": True, "no": None}), [WEATHER], True, {}),
    "tool result, parts": (tool_turn({}, "", [{"type": "text", "text": "Sun"}]), [WEATHER], True, {}),
    "tool call without tools": (tool_turn({"city": "X"}), None, True, {}),
    "two tool calls": (TWO_CALLS, [WEATHER, CLOCK], True, {}),
    "documents": (CHAT, None, True, {"documents": [{"title": "T", "text": "Some <text>", "contents": "c"}]}),
    "two users": ([user("a"), user("b")], None, True, {}),
    "assistant first": ([assistant("a"), user("b")], None, True, {}),
    "odd role": ([{"role": "narrator", "content": "Once"}, user("b")], None, True, {}),
    "developer": ([{"role": "developer", "content": "Be kind."}, user("b")], None, True, {}),
    "late system": ([user("a"), assistant("b"), {"role": "system", "content": "c"}, user("d")], None, True, {}),
    "many turns": ([m for i in range(20) for m in (user(f"q{i}"), assistant(f"a{i}"))] + [user("end")], None, True, {}),
}


def templates(paths):
    for path in map(pathlib.Path, paths):
        for file in sorted(path.glob("*.jinja")) if path.is_dir() else [path]:
            if file.suffix != ".gguf":
                yield file.name, file.read_text(encoding="utf-8")
                continue
            import gguf

            field = gguf.GGUFReader(file).fields.get("tokenizer.chat_template")
            if field is None:
                print(f"{file.name}: no chat template")
            else:
                yield file.name, bytes(field.parts[field.data[0]]).decode("utf-8")


def rendered_by_jinja2(compile_template, variables):
    try:
        return {"text": compile_template().render(**variables)}
    except Exception as error:  # whatever a template can trip over
        return {"error": f"{type(error).__name__}: {error}"}


def rendered_by_snug(renderer, task):
    renderer.stdin.write(json.dumps(task) + "\n")
    renderer.stdin.flush()
    return json.loads(renderer.stdout.readline())


def first_difference(expected, actual):
    if "error" in expected or "error" in actual:
        return "jinja2: {!r}\n      snug:   {!r}".format(
            expected.get("error", "renders " + expected.get("text", "")[-60:]),
            actual.get("error", "renders " + actual.get("text", "")[-60:]),
        )
    a, b = expected["text"], actual["text"]
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    start = max(0, at - 40)
    return f"jinja2: {a[start:at + 60]!r}\n      snug:   {b[start:at + 60]!r}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renderer")
    parser.add_argument("templates", nargs="+")
    parser.add_argument("--verbose", action="store_true", help="one line per template")
    arguments = parser.parse_args()

    env = environment()
    renderer = subprocess.Popen([arguments.renderer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                encoding="utf-8")
    counts = collections.Counter()
    different_templates = set()
    names = 0
    for name, template in templates(arguments.templates):
        names += 1
        compiled = functools.cache(lambda source=template: env.from_string(source))
        for case, (messages, tools, generation_prompt, extra) in CASES.items():
            shared = {"bos_token": "<s>", "eos_token": "</s>", "messages": messages, "tools": tools,
                      "add_generation_prompt": generation_prompt}
            variables = {**shared, "documents": None, **extra}
            expected = rendered_by_jinja2(compiled, variables)
            actual = rendered_by_snug(renderer, {"template": template, "extra": extra, **shared})
            same = expected.get("text") == actual.get("text") and ("error" in expected) == ("error" in actual)
            counts["identical" if same and "text" in expected else "both raise" if same else "different"] += 1
            if not same:
                different_templates.add(name)
                print(f"{name}: {case}\n      {first_difference(expected, actual)}")
        if arguments.verbose:
            print(f"{name}: {'different' if name in different_templates else 'ok'}")
    renderer.stdin.close()
    renderer.wait()
    print(f"{names} templates x {len(CASES)} conversations: {counts['identical']} identical, {counts['both raise']} both "
          f"raise, {counts['different']} different (in {len(different_templates)} templates)")
    return 1 if counts["different"] or not names else 0


if __name__ == "__main__":
    sys.exit(main())
