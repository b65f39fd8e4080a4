# SNUG_STATIC: all libraries but glibc become part of the binary, so that it runs on any machine with a glibc as new as
# this one's. The sources are compiled as they are otherwise; what is linked differs. Comes before the libraries are
# looked for: they are then found in their static form.
if(NOT SNUG_STATIC)
  return()
endif()

set(CMAKE_FIND_LIBRARY_SUFFIXES .a .so)
set(PKG_CONFIG_ARGN --static)
set(OPENSSL_USE_STATIC_LIBS ON)
add_link_options(-static-libstdc++ -static-libgcc)

# Debian has fmt and spdlog in shared form only. Of fmt a static library is made from its headers; spdlog becomes
# header-only.
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
add_library(snug_fmt STATIC packaging/fmt.cpp)
target_include_directories(snug_fmt PRIVATE $<TARGET_PROPERTY:fmt::fmt,INTERFACE_INCLUDE_DIRECTORIES>)
set_target_properties(fmt::fmt spdlog::spdlog PROPERTIES
  IMPORTED_LOCATION_NONE ${PROJECT_BINARY_DIR}/libsnug_fmt.a
  IMPORTED_SONAME_NONE "")
set_target_properties(spdlog::spdlog PROPERTIES INTERFACE_COMPILE_DEFINITIONS SPDLOG_FMT_EXTERNAL)
add_dependencies(fmt::fmt snug_fmt)

# libcurl from source (packaging/curl), as PkgConfig::CURL.
function(snug_static_curl)
  set(out ${PROJECT_BINARY_DIR}/curl)
  set(crate ${PROJECT_SOURCE_DIR}/packaging/curl)
  file(MAKE_DIRECTORY ${out}/include)
  add_custom_command(
    OUTPUT ${out}/libcurl.a
    COMMAND ${CMAKE_COMMAND} -E env SNUG_CURL_OUT=${out}
            ${CARGO} build --release --locked --quiet --manifest-path ${crate}/Cargo.toml --target-dir ${out}/target
    DEPENDS ${crate}/Cargo.toml ${crate}/Cargo.lock ${crate}/build.rs
    COMMENT "Building libcurl"
    VERBATIM)
  add_custom_target(snug_curl DEPENDS ${out}/libcurl.a)
  find_package(ZLIB REQUIRED)
  add_library(PkgConfig::CURL INTERFACE IMPORTED GLOBAL)
  target_include_directories(PkgConfig::CURL INTERFACE ${out}/include)
  target_compile_definitions(PkgConfig::CURL INTERFACE CURL_STATICLIB)
  target_link_libraries(PkgConfig::CURL INTERFACE ${out}/libcurl.a OpenSSL::SSL OpenSSL::Crypto ZLIB::ZLIB)
  add_dependencies(PkgConfig::CURL snug_curl)

  # What libbsd needs, which libedit needs; their .pc files do not say so.
  find_library(SNUG_MD md REQUIRED)
  target_link_libraries(PkgConfig::EDIT INTERFACE ${SNUG_MD})
endfunction()
