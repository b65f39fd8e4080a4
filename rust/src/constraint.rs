//! Grammars that an answer must follow (llguidance): which tokens may come next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value as Json;

use crate::confined::{run_confined, Bounds};

/// A grammar longer than this is refused.
const MAX_GRAMMAR_BYTES: usize = 128 << 10;
/// More in one object are refused: compiling takes time with the square of properties, with the cube of patterns.
const MAX_PROPERTIES: usize = 1000;
const MAX_PATTERN_PROPERTIES: usize = 64;

/// What compiling may cost; ordinary schemas take milliseconds. llguidance counts steps, too, but not all of them.
const COMPILE: Bounds = Bounds { memory_bytes: 128 << 20, time: Duration::from_secs(2), may_finish: true };
/// While so many compilations have not come to an end, most of them for nobody any more, there are no others.
const MAX_COMPILING: usize = 8;

/// Of one vocabulary.
pub struct Grammars {
    factory: Arc<ParserFactory>,
    compiling: Arc<AtomicUsize>,
}

/// One more of them, until it is dropped.
struct Compiling(Arc<AtomicUsize>);

impl Drop for Compiling {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Grammars {
    /// `words`: bytes of every token; those of control tokens are empty.
    pub fn new(words: Vec<Vec<u8>>, eos: u32) -> Result<Grammars, String> {
        let info = TokRxInfo::new(words.len() as u32, eos);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        factory.quiet();
        // Masks are made between two steps of everybody's answers: a few milliseconds at most, and few MB of states.
        let limits = factory.limits_mut();
        limits.step_lexer_fuel = 100_000;
        limits.step_max_items = 25_000;
        limits.max_lexer_states = 25_000;
        limits.verbose_errors = false;
        Ok(Grammars { factory: Arc::new(factory), compiling: Arc::default() })
    }

    /// `kind`: json_schema, regex, lark.
    pub fn constraint(&self, kind: &str, text: &str) -> Result<Constraint, String> {
        if text.len() > MAX_GRAMMAR_BYTES {
            return Err(format!("it has more than {MAX_GRAMMAR_BYTES} bytes"));
        }
        let one = Compiling(self.compiling.clone());
        if self.compiling.fetch_add(1, Ordering::Relaxed) >= MAX_COMPILING {
            return Err("too many grammars take too long".into());
        }
        let (kind, text, factory) = (kind.to_string(), text.to_string(), self.factory.clone());
        let compiled = run_confined(COMPILE, move || {
            let _one = one;
            stand_back();
            compile(&factory, &kind, text)
        });
        let matcher = compiled.map_err(|e| e.to_string())?.ok_or("it takes too much time or memory to compile")?;
        Ok(Constraint { matcher: matcher? })
    }
}

fn compile(factory: &ParserFactory, kind: &str, text: String) -> Result<Matcher, String> {
    let grammar = match kind {
        "json_schema" => {
            let schema: Json = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            check_sizes(&schema)?;
            TopLevelGrammar::from_json_schema(schema)
        }
        "regex" => TopLevelGrammar::from_regex(&text),
        "lark" => TopLevelGrammar::from_lark(text),
        _ => return Err(format!("unknown kind of grammar: {kind}")),
    };
    let parser = factory.create_parser(grammar).map_err(|e| e.to_string())?;
    Ok(Matcher::new(Ok(parser)))
}

fn check_sizes(schema: &Json) -> Result<(), String> {
    let parts: Vec<&Json> = match schema {
        Json::Object(fields) => {
            for (name, most) in [("properties", MAX_PROPERTIES), ("patternProperties", MAX_PATTERN_PROPERTIES)] {
                if fields.get(name).and_then(Json::as_object).is_some_and(|p| p.len() > most) {
                    return Err(format!("an object has more than {most} {name}"));
                }
            }
            fields.values().collect()
        }
        Json::Array(items) => items.iter().collect(),
        _ => return Ok(()),
    };
    parts.into_iter().try_for_each(check_sizes)
}

/// Answers under way come first.
fn stand_back() {
    #[cfg(target_os = "linux")]
    // SAFETY: of the calling thread; a failure changes nothing.
    unsafe {
        libc::nice(10);
    }
}

/// One answer as far as it has come.
pub struct Constraint {
    matcher: Matcher,
}

impl Constraint {
    /// For another answer, from where this one is.
    pub fn copy(&self) -> Constraint {
        Constraint { matcher: self.matcher.deep_clone() }
    }

    /// A bit of every token that may come next.
    pub fn mask(&mut self, out: &mut [u32]) -> Result<(), String> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|e| e.to_string())?;
        let words = mask.as_slice();
        let n = out.len().min(words.len());
        out[..n].copy_from_slice(&words[..n]);
        out[n..].fill(0);
        Ok(())
    }

    pub fn take(&mut self, token: u32) -> Result<(), String> {
        self.matcher.consume_token(token).map_err(|e| e.to_string())
    }

    /// Nothing but the end can follow.
    pub fn ended(&self) -> bool {
        self.matcher.is_stopped()
    }
}
