find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Boost REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(HIREDIS REQUIRED IMPORTED_TARGET hiredis)
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)

include(cmake/rust.cmake)
if(SNUG_STATIC)
  snug_static_curl()
else()
  pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
endif()

snug_room(format ROOMS base kernels LINKS nlohmann_json::nlohmann_json PkgConfig::XXHASH)
snug_room(text ROOMS base format LINKS PkgConfig::PCRE2 nlohmann_json::nlohmann_json snug_rust)
snug_room(weights ROOMS base kernels format)
snug_room(kv ROOMS base kernels format weights)
snug_room(model ROOMS base kernels format text weights kv)
snug_room(generate ROOMS base model text LINKS nlohmann_json::nlohmann_json)
snug_room(measure ROOMS base model text generate LINKS nlohmann_json::nlohmann_json)
snug_room(plan ROOMS base kernels format weights model measure LINKS nlohmann_json::nlohmann_json)
snug_room(serve ROOMS base model text generate LINKS nlohmann_json::nlohmann_json Boost::headers OpenSSL::Crypto
          PkgConfig::XXHASH PkgConfig::HIREDIS)
# The page as it was built by `make web`.
file(GLOB web_dist CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/web/dist/*)
add_custom_command(
  OUTPUT ${PROJECT_BINARY_DIR}/web_files.cpp
  COMMAND ${CMAKE_COMMAND} -D DIST=${PROJECT_SOURCE_DIR}/web/dist -D OUT=${PROJECT_BINARY_DIR}/web_files.cpp
          -P ${PROJECT_SOURCE_DIR}/cmake/web.cmake
  DEPENDS ${web_dist} ${PROJECT_SOURCE_DIR}/cmake/web.cmake
  VERBATIM)
target_sources(snug_serve PRIVATE ${PROJECT_BINARY_DIR}/web_files.cpp)
snug_room(cli ROOMS base format text model generate measure plan serve
          LINKS CLI11::CLI11 nlohmann_json::nlohmann_json PkgConfig::CURL PkgConfig::EDIT OpenSSL::Crypto)

add_executable(snug src/main.cpp)
target_link_libraries(snug PRIVATE snug_cli)
target_compile_definitions(snug_cli PUBLIC SNUG_VERSION="${PROJECT_VERSION}")
snug_warnings(snug)

# Checks and measurements that are not tests.
add_executable(same_answer bench/same_answer.cpp)
target_link_libraries(same_answer PRIVATE snug_generate)
snug_warnings(same_answer)

add_executable(paging bench/paging.cpp)
target_link_libraries(paging PRIVATE snug_kv)
snug_warnings(paging)

add_executable(kv_reference bench/kv_reference.cpp)
target_include_directories(kv_reference PRIVATE tests)
target_link_libraries(kv_reference PRIVATE snug_measure)
snug_warnings(kv_reference)

add_executable(needles bench/needles.cpp)
target_link_libraries(needles PRIVATE snug_measure CLI11::CLI11)
snug_warnings(needles)

add_executable(kv_speed bench/kv_speed.cpp)
target_link_libraries(kv_speed PRIVATE snug_model CLI11::CLI11)
snug_warnings(kv_speed)
add_executable(sequences bench/sequences.cpp)
target_link_libraries(sequences PRIVATE snug_model CLI11::CLI11)
snug_warnings(sequences)

add_executable(disk_read bench/disk_read.cpp)
target_link_libraries(disk_read PRIVATE snug_plan)
snug_warnings(disk_read)

add_executable(logits tools/logits_main.cpp)
target_link_libraries(logits PRIVATE snug_model)
snug_warnings(logits)

add_executable(write_tiny_model tests/support/write_tiny_model.cpp)
target_include_directories(write_tiny_model PRIVATE tests)
target_link_libraries(write_tiny_model PRIVATE snug_format)
snug_warnings(write_tiny_model)

# The binary as a user meets it: bad input, downloads from a local server.
add_library(fail_reads MODULE tests/cli/fail_reads.cpp)
snug_warnings(fail_reads)
set(tiny_model ${PROJECT_BINARY_DIR}/tiny.gguf)
add_test(NAME tiny_model COMMAND write_tiny_model ${tiny_model})
set_tests_properties(tiny_model PROPERTIES FIXTURES_SETUP tiny_model)
foreach(test bad_input batch calibrate kv_session models pack pressure pull redis serve serve_api serve_hostile sparse)
  add_test(NAME cli_${test} COMMAND python3 ${PROJECT_SOURCE_DIR}/tests/cli/${test}_test.py
           $<TARGET_FILE:snug> ${tiny_model} $<TARGET_FILE:fail_reads>)
  set_tests_properties(cli_${test} PROPERTIES FIXTURES_REQUIRED tiny_model)
endforeach()
