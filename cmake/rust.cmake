# snug_rust: the crate in rust/ (a static library with a C interface), built by cargo.
# Every build directory shares one target folder: the crate is always built optimised and uninstrumented, so presets
# would only build the same thing again. Cargo locks that folder itself.
find_program(CARGO cargo HINTS $ENV{CARGO_HOME}/bin $ENV{HOME}/.cargo/bin)
if(NOT CARGO)
  message(FATAL_ERROR "cargo not found: install it (Debian 12: apt-get install cargo-web)")
endif()
execute_process(COMMAND ${CARGO} --version OUTPUT_VARIABLE cargo_version)
string(REGEX MATCH "[0-9]+\\.[0-9]+" cargo_version "${cargo_version}")
if(cargo_version VERSION_LESS 1.87)
  message(FATAL_ERROR "${CARGO} is version ${cargo_version}; 1.87 or newer is needed (Debian 12: apt-get install cargo-web)")
endif()

set(rust_dir ${PROJECT_SOURCE_DIR}/rust)
set(rust_target_dir ${PROJECT_SOURCE_DIR}/build/rust)
set(rust_library ${rust_target_dir}/release/libsnug_rust.a)
file(GLOB rust_sources CONFIGURE_DEPENDS ${rust_dir}/src/*.rs)

add_custom_command(
  OUTPUT ${rust_library}
  COMMAND ${CARGO} build --release --locked --quiet --manifest-path ${rust_dir}/Cargo.toml --target-dir ${rust_target_dir}
  DEPENDS ${rust_sources} ${rust_dir}/Cargo.toml ${rust_dir}/Cargo.lock
  COMMENT "Building the Rust crates"
  VERBATIM)
add_custom_target(snug_rust_build DEPENDS ${rust_library})

add_library(snug_rust INTERFACE)
add_dependencies(snug_rust snug_rust_build)
target_include_directories(snug_rust INTERFACE ${rust_dir}/include)
target_link_libraries(snug_rust INTERFACE ${rust_library} Threads::Threads ${CMAKE_DL_LIBS} m)

# For bench/peers/template_compare.py.
add_executable(snug_render_template EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/tests/text/render_main.cpp)
target_link_libraries(snug_render_template PRIVATE snug_text)
