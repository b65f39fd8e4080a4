//! A compiled chat template: Jinja2 as Hugging Face's transformers sets it up (trim_blocks, lstrip_blocks, loop controls,
//! its `tojson`, `raise_exception`, `strftime_now`), rendered by minijinja within limits.

use std::error::Error as StdError;
use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;

use crate::confined::run_confined;
use crate::limits::{self, LimitedOutput};
use crate::{generators, python, python_json, source};

const NAME: &str = "chat template";
const TOO_MUCH: &str = "the template does too much work for this conversation";

pub struct ChatTemplate {
    environment: Environment<'static>,
}

/// One line for the user; `raised`: it is the template's own message.
pub struct TemplateError {
    pub message: String,
    pub raised: bool,
}

impl TemplateError {
    pub fn new(message: impl Into<String>) -> TemplateError {
        TemplateError { message: message.into(), raised: false }
    }
}

impl From<String> for TemplateError {
    fn from(message: String) -> TemplateError {
        TemplateError::new(message)
    }
}

impl From<Error> for TemplateError {
    fn from(error: Error) -> TemplateError {
        let mut source = error.source();
        while let Some(inner) = source {
            if let Some(raised) = inner.downcast_ref::<Raised>() {
                return TemplateError { message: raised.0.clone(), raised: true };
            }
            source = inner.source();
        }
        let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
        let message = match error.kind() {
            ErrorKind::OutOfFuel => TOO_MUCH.to_string(),
            kind => match (error.detail(), error.source()) {
                (Some(detail), _) => format!("{kind}: {detail}"),
                (None, Some(source)) => format!("{kind}: {source}"),
                (None, None) => kind.to_string(),
            },
        };
        TemplateError::new(line + &message)
    }
}

/// What the template itself objects to.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Raised {}

impl ChatTemplate {
    pub fn new(source: &[u8]) -> Result<ChatTemplate, TemplateError> {
        if source.len() > limits::MAX_SOURCE_BYTES {
            return Err(TemplateError::new("the source is too long"));
        }
        let source = std::str::from_utf8(source).map_err(|_| TemplateError::new("the source is not UTF-8"))?;
        let prepared = source::prepare(source);
        confined(source.len(), move || {
            let mut environment = new_environment()?;
            environment.add_template_owned(NAME, prepared)?;
            Ok(ChatTemplate { environment })
        })
    }

    /// `json`: an object with the template's variables (messages, tools, add_generation_prompt, ...).
    pub fn render(&self, json: &[u8]) -> Result<String, TemplateError> {
        let size = json.len();
        let text = std::str::from_utf8(json).map_err(|_| TemplateError::new("the messages are not UTF-8"))?;
        let variables: Json = serde_json::from_str(text).map_err(|error| TemplateError::new(error.to_string()))?;
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(limits::fuel_for(&variables, size)));
        confined(size, move || {
            let mut output = LimitedOutput { bytes: Vec::new(), limit: limits::output_limit(size) };
            let template = environment.get_template(NAME)?;
            drop(template.render_captured_to(Value::from(Serde(&variables)), &mut output)?);
            String::from_utf8(output.bytes).map_err(|_| TemplateError::new("the rendered text is not UTF-8"))
        })
    }
}

fn confined<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> Result<T, TemplateError> + Send + 'static,
) -> Result<T, TemplateError> {
    match run_confined(limits::bounds_for(size), work) {
        Ok(Some(result)) => result,
        Ok(None) => Err(TemplateError::new(TOO_MUCH)),
        Err(error) => Err(TemplateError::new(format!("cannot start a thread: {error}"))),
    }
}

fn new_environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_function("raise_exception", raise_exception);
    python_json::add_to(&mut environment);
    python::add_to(&mut environment);
    generators::add_to(&mut environment);
    Ok(environment)
}

fn raise_exception(message: Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(Raised(message.to_string())))
}
