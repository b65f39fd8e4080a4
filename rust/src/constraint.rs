//! Grammars that an answer must follow (llguidance): which tokens may come next.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

/// A grammar longer than this is refused.
const MAX_GRAMMAR_BYTES: usize = 1 << 20;

/// Of one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
}

impl Grammars {
    /// `words`: bytes of every token; those of control tokens are empty.
    pub fn new(words: Vec<Vec<u8>>, eos: u32) -> Result<Grammars, String> {
        let info = TokRxInfo::new(words.len() as u32, eos);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        factory.quiet();
        Ok(Grammars { factory })
    }

    /// `kind`: json_schema, regex, lark.
    pub fn constraint(&self, kind: &str, text: &str) -> Result<Constraint, String> {
        if text.len() > MAX_GRAMMAR_BYTES {
            return Err("the grammar is too long".into());
        }
        let grammar = match kind {
            "json_schema" => TopLevelGrammar::from_json_schema(serde_json::from_str(text).map_err(|e| e.to_string())?),
            "regex" => TopLevelGrammar::from_regex(text),
            "lark" => TopLevelGrammar::from_lark(text.to_string()),
            _ => return Err(format!("unknown kind of grammar: {kind}")),
        };
        let parser = self.factory.create_parser(grammar).map_err(|e| e.to_string())?;
        Ok(Constraint { matcher: Matcher::new(Ok(parser)) })
    }
}

/// One answer as far as it has come.
pub struct Constraint {
    matcher: Matcher,
}

impl Constraint {
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
