# What a cross build of base/ and kernels/ needs without a Debian installation of the other architecture: fmt's headers
# (through a link: the host's /usr/include must stay out of sight) and googletest from its source package.
find_path(HOST_FMT_INCLUDE fmt/format.h PATHS /usr/include NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH REQUIRED)
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/host-include)
file(CREATE_LINK ${HOST_FMT_INCLUDE}/fmt ${PROJECT_BINARY_DIR}/host-include/fmt SYMBOLIC)
add_library(fmt INTERFACE)
add_library(fmt::fmt ALIAS fmt)
target_include_directories(fmt SYSTEM INTERFACE ${PROJECT_BINARY_DIR}/host-include)
target_compile_definitions(fmt INTERFACE FMT_HEADER_ONLY)

set(INSTALL_GTEST OFF)
add_subdirectory(/usr/src/googletest ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)

# Sources of base/, and its tests, that need libraries beyond the compiler's.
function(snug_without_libraries)
  get_target_property(sources snug_base SOURCES)
  list(FILTER sources EXCLUDE REGEX "async_reader|log\\.cpp")
  set_target_properties(snug_base PROPERTIES SOURCES "${sources}")
  get_target_property(sources test_base SOURCES)
  list(FILTER sources EXCLUDE REGEX "async_reader")
  set_target_properties(test_base PROPERTIES SOURCES "${sources}")
endfunction()
