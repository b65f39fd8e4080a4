# kernels/: common files without special flags, and the sources in src/kernels/simd/ compiled once per
# instruction set into their own namespace (SNUG_ISA_NS); src/kernels/registry.cpp chooses at start.
snug_room(kernels ROOMS base)

file(GLOB simd_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/kernels/simd/*.cpp)

function(snug_kernels_isa isa)
  add_library(snug_kernels_${isa} OBJECT ${simd_sources})
  target_include_directories(snug_kernels_${isa} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(snug_kernels_${isa} PRIVATE SNUG_ISA_NS=${isa} SNUG_ISA_${isa}=1)
  # -ffp-contract=off: fused multiply-add only where the code says so, so that results do not
  # depend on what the compiler found. -fno-math-errno lets sqrt inline.
  target_compile_options(snug_kernels_${isa} PRIVATE -O3 -ffp-contract=off -fno-math-errno -Wno-psabi ${ARGN})
  if(SNUG_SANITIZE)
    # Instrumented and fully optimised, the products take gcc a quarter of an hour.
    target_compile_options(snug_kernels_${isa} PRIVATE -O1 -g0)
  endif()
  snug_warnings(snug_kernels_${isa})
  target_link_libraries(snug_kernels_${isa} PRIVATE fmt::fmt)
  target_sources(snug_kernels PRIVATE $<TARGET_OBJECTS:snug_kernels_${isa}>)
  target_compile_definitions(snug_kernels PUBLIC SNUG_HAVE_${isa}=1)
endfunction()

# The reference: -O1 keeps its compile time in bounds (its vectors are arrays that would be unrolled).
snug_kernels_isa(scalar -O1)
if(SNUG_FUZZ)
  # The same sources, and the only ones that clang instruments in less than ten minutes.
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  snug_kernels_isa(avx2 -mavx2 -mfma -mf16c -mbmi2)
  snug_kernels_isa(avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16
                   -mavx512vbmi -mfma -mf16c -mbmi2 -mprefer-vector-width=512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  snug_kernels_isa(neon -march=armv8.2-a+dotprod)
endif()
