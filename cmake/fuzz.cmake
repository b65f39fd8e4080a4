# The fuzz targets, twice: driven over corpus and seeded mutations as a test, and (SNUG_FUZZ, clang) by libFuzzer:
#   cmake --preset fuzz && cmake --build build/fuzz --target gguf_fuzz
#   build/fuzz/gguf_fuzz -dict=tests/fuzz/gguf.dict -max_total_time=1800 NEW_FOLDER tests/fuzz/corpus tests/fuzz/found
# and the same with request_fuzz, request.dict and request_corpus.
# corpus/ holds whole models (write_fuzz_seeds), found/ the small inputs that reach more of the code (gguf_fuzz -merge=1).
set(fuzz_dir ${PROJECT_SOURCE_DIR}/tests/fuzz)

function(snug_fuzz_target name)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE snug_model)
  snug_warnings(${name})
endfunction()

snug_fuzz_target(fuzz_replay ${fuzz_dir}/gguf_fuzz.cpp ${fuzz_dir}/replay_main.cpp)
add_test(NAME fuzz_replay COMMAND fuzz_replay ${fuzz_dir}/corpus 20000)
add_test(NAME fuzz_replay_found COMMAND fuzz_replay ${fuzz_dir}/found 200)
snug_fuzz_target(kv_file_replay ${fuzz_dir}/kv_file_fuzz.cpp ${fuzz_dir}/replay_main.cpp)
add_test(NAME fuzz_replay_kv COMMAND kv_file_replay ${fuzz_dir}/kv_corpus 20000)
snug_fuzz_target(request_replay ${fuzz_dir}/request_fuzz.cpp ${fuzz_dir}/replay_main.cpp)
target_link_libraries(request_replay PRIVATE snug_serve)
add_test(NAME fuzz_replay_request COMMAND request_replay ${fuzz_dir}/request_corpus 1000)
snug_fuzz_target(write_fuzz_seeds ${fuzz_dir}/write_seeds.cpp)
if(SNUG_FUZZ)
  snug_fuzz_target(gguf_fuzz ${fuzz_dir}/gguf_fuzz.cpp)
  snug_fuzz_target(kv_file_fuzz ${fuzz_dir}/kv_file_fuzz.cpp)
  snug_fuzz_target(request_fuzz ${fuzz_dir}/request_fuzz.cpp)
  target_link_libraries(request_fuzz PRIVATE snug_serve)
  target_link_options(request_fuzz PRIVATE -fsanitize=fuzzer)
  target_link_options(gguf_fuzz PRIVATE -fsanitize=fuzzer)
  target_link_options(kv_file_fuzz PRIVATE -fsanitize=fuzzer)
endif()
