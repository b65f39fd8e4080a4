//! What one rendering may cost. Templates come with model files, so they may be hostile: endless loops, doubling
//! strings and deep nesting end in an error.

use std::io;
use std::time::Duration;

use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;

use crate::confined::Bounds;

/// Nested values (lists in lists) deeper than this are refused wherever our own code walks them.
pub const MAX_DEPTH: usize = 200;

/// Source text longer than this is no chat template.
pub const MAX_SOURCE_BYTES: usize = 512 << 10;

const BASE_FUEL: u64 = 2_000_000;
const FUEL_PER_MESSAGE_PAIR: u64 = 40;
const MAX_PAIR_FUEL: u64 = 200_000_000;

/// minijinja charges 1 for an instruction or 64 bytes of text. Templates that look at all earlier messages for each
/// message are common, so the allowance has a quadratic part; it grows with the user's input, never with the template.
pub fn fuel_for(variables: &Json, json_bytes: usize) -> u64 {
    let count = |name: &str| variables.get(name).and_then(Json::as_array).map_or(0, Vec::len) as u64;
    let items = count("messages").saturating_add(count("tools")).saturating_add(count("documents"));
    let pairs = items.saturating_mul(items).saturating_mul(FUEL_PER_MESSAGE_PAIR).min(MAX_PAIR_FUEL);
    BASE_FUEL + pairs + 4 * json_bytes as u64
}

/// Far above what any conversation needs.
pub fn bounds_for(json_bytes: usize) -> Bounds {
    Bounds {
        memory_bytes: (128 << 20) + 64 * json_bytes as i64,
        time: Duration::from_millis(5_000 + json_bytes as u64 / 1000),
        may_finish: false,
    }
}

pub fn output_limit(json_bytes: usize) -> usize {
    (16 << 20) + 8 * json_bytes
}

/// Collects output up to a limit.
pub struct LimitedOutput {
    pub bytes: Vec<u8>,
    pub limit: usize,
}

impl io::Write for LimitedOutput {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > self.limit {
            return Err(io::Error::other("the rendered text is too long"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, "value is nested too deeply")
}
