//! `{% generation %} ... {% endgeneration %}` marks the assistant's tokens for training. Rendering only needs its scope,
//! which `{% with %}` has; the tag is replaced, everything around it (whitespace control included) stays.

pub fn replace_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        let (before, tail) = rest.split_at(start);
        out.push_str(before);
        let (copied, replacement) = match tail.as_bytes().get(1) {
            Some(b'%') => block_tag(tail),
            Some(b'#') => (tail.find("#}").map_or(tail.len(), |end| end + 2), None),
            Some(b'{') => (2, None),
            _ => (1, None),
        };
        match replacement {
            Some(text) => out.push_str(&text),
            None => out.push_str(&tail[..copied]),
        }
        rest = &tail[copied..];
    }
    out.push_str(rest);
    out
}

/// Length of the tag that `tail` starts with, and what it becomes if it is one of ours. Other tags are copied up to
/// their name only, except `raw`, which is copied to its end.
fn block_tag(tail: &str) -> (usize, Option<String>) {
    let inner = &tail[2..];
    let name_start = inner.find(|c: char| !matches!(c, '-' | '+') && !c.is_whitespace()).unwrap_or(inner.len());
    let after = &inner[name_start..];
    let name_len = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
    let (name, end) = (&after[..name_len], 2 + name_start + name_len);
    let head = &tail[..2 + name_start];
    match name {
        "generation" => (end, Some(format!("{head}with"))),
        "endgeneration" => (end, Some(format!("{head}endwith"))),
        "raw" => (tail.find("endraw").unwrap_or(tail.len()), None),
        _ => (end.max(2), None),
    }
}
