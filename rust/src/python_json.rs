//! `tojson` as transformers defines it: Python's `json.dumps(value, ensure_ascii=False, indent=None, separators=None,
//! sort_keys=False)`, without Jinja's HTML escaping.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use crate::limits;
use crate::python::float_repr;

pub fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", tojson);
}

fn tojson(state: &State, value: &Value, given: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let option = |position: usize, name: &str| -> Result<Value, Error> {
        match given.get(position) {
            Some(value) => Ok(value.clone()),
            None => Ok(named.get::<Option<Value>>(name)?.unwrap_or(Value::from(()))),
        }
    };
    let ensure_ascii = option(0, "ensure_ascii")?.is_true();
    let indent = indent_text(&option(1, "indent")?)?;
    let separators = option(2, "separators")?;
    let sort_keys = option(3, "sort_keys")?.is_true();
    named.assert_all_used()?;

    let (item_separator, key_separator) = match separators.is_none() {
        true => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
        false => {
            let part = |index: usize| -> Result<String, Error> {
                let text = separators.get_item_by_index(index)?;
                text.as_str().map(String::from).ok_or_else(|| invalid("separators must be two strings"))
            };
            (part(0)?, part(1)?)
        }
    };
    let mut writer = Writer {
        state,
        out: String::new(),
        charged: 0,
        ensure_ascii,
        indent,
        item_separator,
        key_separator,
        sort_keys,
    };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Python takes a number of spaces, or the text itself; a negative number means line breaks without indentation.
fn indent_text(indent: &Value) -> Result<Option<String>, Error> {
    match indent.kind() {
        ValueKind::None | ValueKind::Undefined => Ok(None),
        ValueKind::String => Ok(indent.as_str().map(String::from)),
        ValueKind::Bool => Ok(Some(" ".repeat(indent.is_true() as usize))),
        _ => match i64::try_from(indent.clone()) {
            Ok(count) if count <= 64 => Ok(Some(" ".repeat(count.max(0) as usize))),
            _ => Err(invalid("tojson: indent must be a small integer or a string")),
        },
    }
}

struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    out: String,
    charged: usize,
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > limits::MAX_DEPTH {
            return Err(limits::too_deep());
        }
        // Shared parts are written out again each time, so a small value can become a huge text.
        self.state.consume_fuel(1 + ((self.out.len() - self.charged) / 64) as u64)?;
        self.charged = self.out.len();
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => self.out.push_str(&json_float(value)?),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Iterable if value.len().is_none() => {
                return Err(invalid("a generator cannot be written as JSON"))
            }
            ValueKind::Seq | ValueKind::Iterable => self.sequence(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            kind => return Err(invalid(format!("a value of type {kind} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn sequence(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut any = false;
        for item in value.try_iter()? {
            self.before_item(any, depth + 1);
            any = true;
            self.value(&item, depth + 1)?;
        }
        self.after_items(any, depth);
        self.out.push(']');
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        self.out.push('{');
        for (position, key) in keys.iter().enumerate() {
            self.before_item(position > 0, depth + 1);
            let name = key_text(key)?;
            self.string(&name);
            self.out.push_str(&self.key_separator);
            self.value(&value.get_item(key)?, depth + 1)?;
        }
        self.after_items(!keys.is_empty(), depth);
        self.out.push('}');
        Ok(())
    }

    fn before_item(&mut self, separated: bool, depth: usize) {
        if separated {
            self.out.push_str(&self.item_separator);
        }
        self.line_break(depth);
    }

    fn after_items(&mut self, any: bool, depth: usize) {
        if any {
            self.line_break(depth);
        }
    }

    fn line_break(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    let mut units = [0u16; 2];
                    for unit in c.encode_utf16(&mut units) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_string()),
        ValueKind::None => Ok("null".to_string()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_string()),
        ValueKind::Number if key.is_integer() => Ok(key.to_string()),
        ValueKind::Number => json_float(key),
        kind => Err(invalid(format!("a key of type {kind} cannot be written as JSON"))),
    }
}

fn json_float(value: &Value) -> Result<String, Error> {
    let number = f64::try_from(value.clone())?;
    Ok(match number {
        n if n.is_nan() => "NaN".to_string(),
        n if n.is_infinite() => if n > 0.0 { "Infinity" } else { "-Infinity" }.to_string(),
        n => float_repr(n),
    })
}
