//! The Rust libraries that snug uses, behind the C interface of `include/snug_rust.h`.

mod c_api;
mod chat_template;
mod confined;
mod constraint;
mod generators;
mod limits;
mod python;
mod python_json;
mod source;
