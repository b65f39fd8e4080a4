//! Copies libcurl.a and its headers to SNUG_CURL_OUT.

use std::path::PathBuf;
use std::{env, fs};

fn folder(variable: &str) -> PathBuf {
    PathBuf::from(env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set")))
}

fn main() {
    let (built, out) = (folder("DEP_CURL_ROOT"), folder("SNUG_CURL_OUT"));
    let headers = out.join("include/curl");
    fs::create_dir_all(&headers).expect("SNUG_CURL_OUT cannot be made");
    for header in fs::read_dir(built.join("include/curl")).expect("headers of libcurl") {
        let header = header.expect("headers of libcurl");
        fs::copy(header.path(), headers.join(header.file_name())).expect("a header cannot be copied");
    }
    let library = out.join("libcurl.a");
    fs::copy(built.join("build/libcurl.a"), &library).expect("libcurl.a cannot be copied");
    println!("cargo:rerun-if-env-changed=SNUG_CURL_OUT");
    println!("cargo:rerun-if-changed={}", library.display());
}
