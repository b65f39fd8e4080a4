"""JSON schemas of many kinds, made with a seed: what clients send as response_format, and what is hard about them."""

import random

WORDS = ("name title color city owner status level price count score label note kind region unit size weight model "
         "brand origin target result reason author year month code path group phase").split()
PATTERNS = ["^[A-Z]{3}-[0-9]{4}$", "^(north|south)-(east|west)$", "^[a-z]+(_[a-z]+){0,2}$", "^#[0-9a-f]{6}$", "^v[0-9]+\\.[0-9]+$",
            "^[A-Z][a-z]{2,12}$", "^(?:[0-9]{1,3}, ){0,3}[0-9]{1,3}$"]
FORMATS = ["date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "uri", "hostname", "duration"]


def text(r):
    return {"type": "string", "minLength": r.randint(0, 4), "maxLength": r.randint(5, 30)}


def integer(r):
    least = r.choice([-1000, -7, 0, 1, 18, 999])
    bounds = {"minimum": least, "maximum": least + r.choice([1, 9, 150, 100000])}
    if r.random() < 0.3:
        bounds = {"exclusiveMinimum": least, "exclusiveMaximum": least + r.choice([3, 50])}
    return {"type": "integer"} | bounds | ({"multipleOf": 1} if r.random() < 0.2 else {})


def number(r):
    return {"type": "number", "minimum": r.choice([-1.5, 0, 0.001]), "maximum": r.choice([1, 99.5, 1e6])}


def multiple(r):
    return {"type": "integer", "minimum": 0, "maximum": 1000, "multipleOf": r.choice([2, 5, 25])}


def enum(r):
    return {"enum": r.sample(["red", "green", "a \"quoted\" one", "naïve – ünïcode", 1, 2.5, None, True, ["x"], {"y": 1}, "日本", ""], r.randint(1, 6))}


def const(r):
    return {"const": r.choice(["fixed", 42, None, False, [1, 2, 3], {"a": {"b": []}}])}


def pattern(r):
    return {"type": "string", "pattern": r.choice(PATTERNS)}


def format_(r):
    return {"type": "string", "format": r.choice(FORMATS)}


def simple(r):
    return r.choice([text, integer, number, enum, const, pattern, lambda _: {"type": "boolean"}, multiple])(r)


def record(r, most=6, depth=2):
    names = r.sample(WORDS, r.randint(1, most))
    properties = {n: any_schema(r, depth - 1) for n in names}
    required = names if r.random() < 0.6 else r.sample(names, r.randint(0, len(names)))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def open_record(r):
    """Further properties are allowed, of one kind and not many."""
    names = r.sample(WORDS, 2)
    return {"type": "object", "properties": {n: simple(r) for n in names}, "required": names, "maxProperties": r.randint(2, 4),
            "additionalProperties": r.choice([integer, text, enum])(r)}


def dictionary(r):
    return {"type": "object", "patternProperties": {"^[a-z]{1,8}$": simple(r)}, "additionalProperties": False, "minProperties": 1, "maxProperties": 3}


def array(r, depth=2):
    least = r.randint(0, 3)
    return {"type": "array", "items": any_schema(r, depth - 1), "minItems": least, "maxItems": least + r.randint(0, 3)}


def tuple_(r, depth=2):
    first = [any_schema(r, depth - 1) for _ in range(r.randint(1, 3))]
    return {"type": "array", "prefixItems": first, "items": r.choice([False, simple(r)]), "minItems": len(first), "maxItems": len(first) + 2}


def nullable(r):
    return r.choice([lambda: {"type": ["string", "null"], "maxLength": 12}, lambda: {"anyOf": [simple(r), {"type": "null"}]},
                     lambda: {"type": ["integer", "boolean", "null"], "minimum": 0, "maximum": 9}])()


def any_of(r, depth=2):
    return {"anyOf": [any_schema(r, depth - 1) for _ in range(r.randint(2, 4))]}


def one_of(r):
    """Told apart by a constant, as tagged unions are."""
    tags = r.sample(WORDS, r.randint(2, 4))
    case = lambda tag: {"type": "object", "properties": {"type": {"const": tag}, "value": simple(r)}, "required": ["type", "value"],
                        "additionalProperties": False}
    return {"oneOf": [case(tag) for tag in tags]}


def all_of(r):
    return {"allOf": [{"type": "object", "properties": {"id": integer(r)}, "required": ["id"]},
                      {"type": "object", "properties": {"tag": enum(r)}, "required": ["tag"], "maxProperties": 2}]}


def shared(r):
    """Definitions that are used more than once."""
    return {"$defs": {"thing": record(r, 3, 1), "grade": enum(r)}, "type": "object",
            "properties": {"first": {"$ref": "#/$defs/thing"}, "second": {"$ref": "#/$defs/thing"},
                           "grades": {"type": "array", "items": {"$ref": "#/$defs/grade"}, "maxItems": 3}},
            "required": ["first", "grades"], "additionalProperties": False}


def tree(r):
    node = {"type": "object", "properties": {"label": {"type": "string", "maxLength": 10},
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": r.randint(1, 2)}},
            "required": ["label", "children"], "additionalProperties": False}
    return {"$defs": {"node": node}, "$ref": "#/$defs/node"}


def linked_list(r):
    return {"type": "object", "properties": {"value": integer(r), "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
            "required": ["value", "next"], "additionalProperties": False}


def expression(r):
    """Two definitions that call each other."""
    operands = {"type": "array", "items": {"$ref": "#/$defs/term"}, "minItems": 2, "maxItems": 2}
    return {"$defs": {"term": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 99}, {"$ref": "#/$defs/call"}]},
                      "call": {"type": "object", "properties": {"op": {"enum": ["+", "*"]}, "of": operands}, "required": ["op", "of"],
                               "additionalProperties": False}},
            "$ref": "#/$defs/" + r.choice(["call", "term"])}


def any_schema(r, depth=2):
    if depth <= 0:
        return simple(r)
    return r.choice([simple, format_, nullable, lambda r: record(r, 3, depth), lambda r: array(r, depth)])(r)


KINDS = [record, open_record, dictionary, array, tuple_, nullable, any_of, one_of, all_of, shared, tree, linked_list, expression, text,
         integer, number, multiple, enum, const, pattern, format_]


def random_schemas(count, seed=1):
    """(kind, schema), kinds taking turns."""
    r = random.Random(seed)
    return [(KINDS[i % len(KINDS)].__name__.strip("_"), KINDS[i % len(KINDS)](r)) for i in range(count)]
