//! Nothing of its own: `build.rs` hands over the libcurl that curl-sys has built.
