//! Where Jinja2 shows Python through: methods of strings and maps, tests, the printing of numbers, the clock.

use minijinja::value::{from_args, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};

use crate::generators::Generator;
use crate::limits;

pub fn add_to(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(unknown_method);
    environment.set_formatter(format_value);
    environment.add_function("strftime_now", strftime_now);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_filter("string", string);
    environment.add_filter("_iterated", iterated);
    environment.add_filter("_stored", stored);
    // Filters and functions that Jinja2 doesn't know: a template that uses them fails there too.
    for name in ["split", "lines", "bool", "chain", "zip"] {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
}

/// Python's `repr(float)`.
pub fn float_repr(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_string();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{number}");
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

fn format_value(out: &mut Output, _state: &mut State, value: &Value) -> Result<(), Error> {
    let written = if value.kind() == ValueKind::Number && !value.is_integer() {
        out.write_str(&float_repr(f64::try_from(value.clone())?))
    } else if let Some(text) = value.as_str() {
        out.write_str(text)
    } else {
        write!(out, "{value}")
    };
    written.map_err(Error::from)
}

fn string(state: &State, value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => Ok(value),
        ValueKind::Number if !value.is_integer() => Ok(Value::from(float_repr(f64::try_from(value)?))),
        _ => minijinja::filters::string(state, &value),
    }
}

/// What a `for` loop runs over (see source.rs).
fn iterated(value: Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "None is not iterable"));
    }
    Ok(value)
}

/// What is kept in a namespace (see source.rs): no namespaces, whose cycles nothing could print, and nothing deep.
fn stored(state: &State, value: Value) -> Result<Value, Error> {
    check_stored(state, &value, 0)?;
    Ok(value)
}

fn check_stored(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
    let Some(object) = value.as_object() else {
        return Ok(());
    };
    if object.type_name().ends_with("::Namespace") {
        return Err(Error::new(ErrorKind::InvalidOperation, "a namespace cannot hold a namespace"));
    }
    if depth > limits::MAX_DEPTH {
        return Err(limits::too_deep());
    }
    // A generator would be used up, a macro holds nothing.
    if object.enumerator_len().is_none() {
        return Ok(());
    }
    let Some(items) = object.try_iter_pairs() else {
        return Ok(());
    };
    for (position, (_, item)) in items.enumerate() {
        if position % 8 == 0 {
            state.consume_fuel(1)?;
        }
        check_stored(state, &item, depth + 1)?;
    }
    Ok(())
}

/// Anything with a length and items, strings and maps included.
fn is_sequence(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined => true,
        ValueKind::Iterable => value.len().is_some(),
        _ => false,
    }
}

fn is_iterable(value: &Value) -> bool {
    let generator = value.downcast_object_ref::<Generator>().is_some();
    generator || (!value.is_none() && value.try_iter().is_ok())
}

fn unknown_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.kind(), method) {
        (ValueKind::String, "removeprefix" | "removesuffix") => {
            let (affix,): (&str,) = from_args(args)?;
            let text = value.as_str().unwrap_or_default();
            let short = if method == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Ok(Value::from(short.unwrap_or(text)))
        }
        (ValueKind::String, "rsplit" | "partition" | "rpartition") => split_from(value, method, args),
        (ValueKind::Map, "copy") => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        (ValueKind::Seq | ValueKind::Iterable, "index") => {
            let (wanted, _rest): (&Value, Rest<Value>) = from_args(args)?;
            let position = value.try_iter()?.position(|item| item == *wanted);
            position.map(Value::from).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "value is not in the list"))
        }
        (ValueKind::Iterable, "count") => {
            let (wanted,): (&Value,) = from_args(args)?;
            Ok(Value::from(value.try_iter()?.filter(|item| item == wanted).count()))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn split_from(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or_default();
    if method == "rsplit" {
        let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
        let parts = usize::try_from(limit.unwrap_or(-1)).map_or(usize::MAX, |count| count.saturating_add(1));
        let mut found: Vec<&str> = match separator {
            Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
            Some(separator) => text.rsplitn(parts, separator).collect(),
            None if limit.is_none() => text.split_whitespace().rev().collect(),
            None => return Err(Error::new(ErrorKind::InvalidOperation, "rsplit needs a separator here")),
        };
        found.reverse();
        return Ok(found.into_iter().map(Value::from).collect());
    }
    let (separator,): (&str,) = from_args(args)?;
    let (found, missing) = match method {
        "partition" => (text.split_once(separator), [text, "", ""]),
        _ => (text.rsplit_once(separator), ["", "", text]),
    };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None => missing,
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Local time in the C library's `strftime`, which is also what Python uses.
fn strftime_now(format: &str) -> Result<Value, Error> {
    let failed = || Error::new(ErrorKind::InvalidOperation, "strftime_now: unusable format");
    let format = std::ffi::CString::new(format).map_err(|_| failed())?;
    if format.as_bytes().is_empty() {
        return Ok(Value::from(""));
    }
    let mut buffer = vec![0u8; 1024 + 16 * format.as_bytes().len().min(4096)];
    // SAFETY: `time` accepts null; `parts` is written by localtime_r before strftime reads it, and strftime writes at
    // most the given number of bytes.
    let written = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&now, &mut parts).is_null() {
            return Err(failed());
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &parts)
    };
    if written == 0 {
        return Err(failed());
    }
    buffer.truncate(written);
    String::from_utf8(buffer).map(Value::from).map_err(|_| failed())
}
