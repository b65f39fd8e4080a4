//! C interface: pointers and lengths in, owned bytes out; panics become errors.

use std::any::Any;
use std::ffi::c_char;
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::sync::Once;

use crate::chat_template::{ChatTemplate, TemplateError};
use crate::constraint::{Constraint, Grammars};

#[repr(C)]
pub struct Bytes {
    data: *mut c_char,
    size: usize,
}

impl From<String> for Bytes {
    fn from(text: String) -> Bytes {
        if text.is_empty() {
            return Bytes { data: std::ptr::null_mut(), size: 0 };
        }
        let boxed = text.into_bytes().into_boxed_slice();
        let size = boxed.len();
        Bytes { data: Box::into_raw(boxed) as *mut c_char, size }
    }
}

/// # Safety
/// `bytes` comes from this crate and is freed once.
#[no_mangle]
pub unsafe extern "C" fn snug_bytes_free(bytes: Bytes) {
    if !bytes.data.is_null() {
        let slice = std::ptr::slice_from_raw_parts_mut(bytes.data as *mut u8, bytes.size);
        drop(Box::from_raw(slice));
    }
}

/// # Safety
/// `source` points to `source_size` bytes, `error` to writable memory.
#[no_mangle]
pub unsafe extern "C" fn snug_template_new(
    source: *const c_char,
    source_size: usize,
    error: *mut Bytes,
) -> *mut ChatTemplate {
    let source = bytes_at(source, source_size);
    boxed(error, || ChatTemplate::new(source))
}

/// # Safety
/// `compiled` comes from `snug_template_new`; `json` points to `json_size` bytes; the others to writable memory.
#[no_mangle]
pub unsafe extern "C" fn snug_template_render(
    compiled: *const ChatTemplate,
    json: *const c_char,
    json_size: usize,
    result: *mut Bytes,
    error: *mut Bytes,
    raised: *mut i32,
) -> i32 {
    let json = bytes_at(json, json_size);
    match guarded(|| (*compiled).render(json)) {
        Ok(text) => {
            result.write(text.into());
            0
        }
        Err(failure) => {
            raised.write(failure.raised as i32);
            error.write(one_line(failure.message).into());
            1
        }
    }
}

/// # Safety
/// `compiled` comes from `snug_template_new`, is freed once, and no render is under way.
#[no_mangle]
pub unsafe extern "C" fn snug_template_free(compiled: *mut ChatTemplate) {
    free(compiled);
}

/// # Safety
/// `sizes` points to `count` numbers, `pieces` to as many bytes as they add up to, `error` to writable memory.
#[no_mangle]
pub unsafe extern "C" fn snug_grammars_new(
    pieces: *const c_char,
    sizes: *const u32,
    count: usize,
    eos: u32,
    error: *mut Bytes,
) -> *mut Grammars {
    let sizes = std::slice::from_raw_parts(sizes, count);
    let pieces = bytes_at(pieces, sizes.iter().map(|&n| n as usize).sum());
    boxed(error, || {
        let mut at = 0;
        let words = sizes.iter().map(|&size| {
            at += size as usize;
            pieces[at - size as usize..at].to_vec()
        });
        Grammars::new(words.collect(), eos)
    })
}

/// # Safety
/// `grammars` comes from `snug_grammars_new` and is freed once.
#[no_mangle]
pub unsafe extern "C" fn snug_grammars_free(grammars: *mut Grammars) {
    free(grammars);
}

/// # Safety
/// `grammars` comes from `snug_grammars_new`; `kind` and `text` point to so many bytes, `error` to writable memory.
#[no_mangle]
pub unsafe extern "C" fn snug_constraint_new(
    grammars: *const Grammars,
    kind: *const c_char,
    kind_size: usize,
    text: *const c_char,
    text_size: usize,
    error: *mut Bytes,
) -> *mut Constraint {
    let kind = String::from_utf8_lossy(bytes_at(kind, kind_size));
    let text = String::from_utf8_lossy(bytes_at(text, text_size));
    boxed(error, || (*grammars).constraint(&kind, &text))
}

/// # Safety
/// `constraint` comes from `snug_constraint_new`, `error` points to writable memory.
#[no_mangle]
pub unsafe extern "C" fn snug_constraint_copy(constraint: *const Constraint, error: *mut Bytes) -> *mut Constraint {
    boxed(error, || Ok::<_, String>((*constraint).copy()))
}

/// # Safety
/// `constraint` comes from `snug_constraint_new`; `mask` points to `words` numbers, `error` to writable memory.
#[no_mangle]
pub unsafe extern "C" fn snug_constraint_mask(
    constraint: *mut Constraint,
    mask: *mut u32,
    words: usize,
    error: *mut Bytes,
) -> i32 {
    let mask = std::slice::from_raw_parts_mut(mask, words);
    done(error, || (*constraint).mask(mask))
}

/// # Safety
/// `constraint` comes from `snug_constraint_new`, `error` points to writable memory.
#[no_mangle]
pub unsafe extern "C" fn snug_constraint_take(constraint: *mut Constraint, token: u32, error: *mut Bytes) -> i32 {
    done(error, || (*constraint).take(token))
}

/// # Safety
/// `constraint` comes from `snug_constraint_new`.
#[no_mangle]
pub unsafe extern "C" fn snug_constraint_ended(constraint: *const Constraint) -> i32 {
    (*constraint).ended() as i32
}

/// # Safety
/// `constraint` comes from `snug_constraint_new` and is freed once.
#[no_mangle]
pub unsafe extern "C" fn snug_constraint_free(constraint: *mut Constraint) {
    free(constraint);
}

unsafe fn free<T>(owned: *mut T) {
    if !owned.is_null() {
        drop(Box::from_raw(owned));
    }
}

unsafe fn boxed<T, E: Into<TemplateError>>(error: *mut Bytes, work: impl FnOnce() -> Result<T, E>) -> *mut T {
    match guarded(|| work().map_err(Into::into)) {
        Ok(made) => Box::into_raw(Box::new(made)),
        Err(failure) => {
            error.write(one_line(failure.message).into());
            std::ptr::null_mut()
        }
    }
}

unsafe fn done(error: *mut Bytes, work: impl FnOnce() -> Result<(), String>) -> i32 {
    match guarded(|| work().map_err(Into::into)) {
        Ok(()) => 0,
        Err(failure) => {
            error.write(one_line(failure.message).into());
            1
        }
    }
}

unsafe fn bytes_at<'a>(data: *const c_char, size: usize) -> &'a [u8] {
    if size == 0 {
        return &[];
    }
    std::slice::from_raw_parts(data as *const u8, size)
}

fn guarded<T>(work: impl FnOnce() -> Result<T, TemplateError>) -> Result<T, TemplateError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| set_hook(Box::new(|_| {})));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(TemplateError::new(panic_text(&*panic))))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("an internal failure: {}", text.unwrap_or("unknown reason"))
}

fn one_line(text: String) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}
