//! Small rewrites of a template's source, for what minijinja leaves out. Only tags change, never line numbers.
//!
//! - `{% generation %}` marks the assistant's tokens for training; rendering needs only its scope, as `{% with %}` has.
//! - `for x in E` becomes `for x in (E)|_iterated`: Python refuses to iterate over None.
//! - `set ns.x = E` becomes `set ns.x = (E)|_stored`: what loops pile up in a namespace stays small enough to print.

pub fn prepare(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let length = match rest.as_bytes().get(1) {
            Some(b'#') => end_of(rest.find("#}"), rest),
            Some(b'{') => end_of(closing(rest, "}}"), rest),
            Some(b'%') => {
                let length = end_of(closing(rest, "%}"), rest);
                match rest[2..length].strip_suffix("%}") {
                    Some(inner) if !is_raw(inner) => {
                        out.push_str("{%");
                        out.push_str(&rewritten(inner));
                        out.push_str("%}");
                        rest = &rest[length..];
                        continue;
                    }
                    Some(_) => end_of(rest.find("endraw"), rest),
                    None => length,
                }
            }
            _ => 1,
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

fn end_of(found: Option<usize>, text: &str) -> usize {
    found.map_or(text.len(), |at| (at + 2).min(text.len()))
}

fn is_raw(inner: &str) -> bool {
    inner.trim_start_matches(['-', '+']).trim().trim_end_matches(['-', '+']).trim_end() == "raw"
}

/// Position of `end` in a tag that starts at 0, outside of string literals.
fn closing(tag: &str, end: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, byte) in tag.bytes().enumerate().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if byte == b'\\' => escaped = true,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if byte == b'"' || byte == b'\'' => quote = Some(byte),
            None if tag.as_bytes()[at..].starts_with(end.as_bytes()) => return Some(at),
            None => {}
        }
    }
    None
}

/// A block tag without its delimiters.
fn rewritten(inner: &str) -> String {
    let name_start = inner.len() - inner.trim_start_matches(['-', '+']).trim_start().len();
    let (head, body) = inner.split_at(name_start);
    let name = &body[..body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len())];
    let arguments = &body[name.len()..];
    let wrapped = match name {
        "generation" => return format!("{head}with{arguments}"),
        "endgeneration" => return format!("{head}endwith{arguments}"),
        "for" => wrap(body, marks(body).iterated, "_iterated"),
        "set" => wrap(body, marks(body).stored, "_stored"),
        _ => None,
    };
    format!("{head}{}", wrapped.as_deref().unwrap_or(body))
}

fn wrap(body: &str, span: Option<(usize, usize)>, filter: &str) -> Option<String> {
    let (start, end) = span?;
    let expression = body[start..end].trim();
    if expression.is_empty() {
        return None;
    }
    let space = if end < body.len() && !body[end..].starts_with(char::is_whitespace) { " " } else { "" };
    Some(format!("{} ({expression})|{filter}{space}{}", &body[..start], &body[end..]))
}

/// Spans of the expressions in a tag's body.
#[derive(Default)]
struct Marks {
    iterated: Option<(usize, usize)>,
    stored: Option<(usize, usize)>,
}

/// Finds `in`, `if`, `recursive` and `=` outside of brackets and strings.
fn marks(body: &str) -> Marks {
    let bytes = body.as_bytes();
    let trimmed = body.trim_end();
    let end = trimmed.strip_suffix(['-', '+']).unwrap_or(trimmed).len();
    let mut found = Marks::default();
    let (mut depth, mut quote, mut at) = (0usize, None, 0);
    while at < end {
        let byte = bytes[at];
        if let Some(open) = quote {
            match byte {
                b'\\' => at += 1,
                _ if byte == open => quote = None,
                _ => {}
            }
            at += 1;
            continue;
        }
        match byte {
            b'"' | b'\'' => quote = Some(byte),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'=' if depth == 0 && found.stored.is_none() && bytes.get(at + 1) != Some(&b'=') => {
                if body[..at].contains('.') {
                    found.stored = Some((at + 1, end));
                }
                if found.iterated.is_none() {
                    return found;
                }
            }
            _ if is_word(byte) => {
                let word_end = at + bytes[at..end].iter().take_while(|b| is_word(**b)).count();
                match (&body[at..word_end], found.iterated) {
                    ("in", None) if depth == 0 => found.iterated = Some((word_end, end)),
                    ("if" | "recursive", Some((start, _))) if depth == 0 => {
                        found.iterated = Some((start, at));
                        return found;
                    }
                    _ => {}
                }
                at = word_end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::prepare;

    #[test]
    fn rewrites_tags_only() {
        assert_eq!(prepare("a {% for x in y %}b"), "a {% for x in (y)|_iterated %}b");
        assert_eq!(prepare("{%- for k, v in d.items() if k -%}"), "{%- for k, v in (d.items())|_iterated if k -%}");
        assert_eq!(
            prepare("{% for x in f('in if %}') recursive %}"),
            "{% for x in (f('in if %}'))|_iterated recursive %}"
        );
        assert_eq!(prepare("{% set ns.a = b -%}"), "{% set ns.a = (b)|_stored -%}");
        assert_eq!(prepare("{% generation -%}x{%- endgeneration %}"), "{% with -%}x{%- endwith %}");
        for same in [
            "{% set a = b %}",
            "{{ '{% for x in y %}' }}",
            "{# {% for x in y %} #}",
            "{",
            "{%",
            "{% set ns.a %}",
            "{% raw %}{% for x in y %}{% endraw %}",
            "{% if a.b == c %}",
            "{{ 'a",
            "{% set a = x.y == z %}",
        ] {
            assert_eq!(prepare(same), same);
        }
    }
}
