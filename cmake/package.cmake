# What `cmake --install` puts where, and the Debian package (CPack). packaging/build makes all packages.
include(GNUInstallDirs)

set(SNUG_MAINTAINER "snug maintainers <maintainers@snug.example>" CACHE STRING "Maintainer that the Debian package names")

# Manual pages and completions come from the binary's own --help, and the notices from what it was built with, when they
# are to be installed.
set(made ${PROJECT_BINARY_DIR}/made)
set(packaging ${PROJECT_SOURCE_DIR}/packaging)
set(crates ${PROJECT_SOURCE_DIR}/rust/Cargo.toml)
if(SNUG_STATIC)
  string(APPEND crates " ${packaging}/curl/Cargo.toml")
endif()
install(CODE "
  execute_process(COMMAND python3 ${packaging}/help_pages.py $<TARGET_FILE:snug> ${made} COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND python3 ${packaging}/notices.py ${made}/THIRD-PARTY.gz ${CARGO} ${crates}
                  COMMAND_ERROR_IS_FATAL ANY)"
  COMPONENT program)
install(TARGETS snug RUNTIME COMPONENT program)
install(DIRECTORY ${made}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT program)
install(FILES ${made}/snug.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME snug
        COMPONENT program)
install(FILES ${made}/snug.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT program)
install(FILES README.md ${made}/THIRD-PARTY.gz docs/serve.md docs/kv.md docs/install.md
        DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)

# Of a tree in /usr/local or elsewhere.
install(FILES ${made}/_snug DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions COMPONENT local)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT local)
install(FILES ${packaging}/snug.service ${packaging}/serve.toml DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT local)

# Of Debian's.
set(debian ${packaging}/debian)
execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} log -1 --format=%cD OUTPUT_VARIABLE SNUG_DATE
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
configure_file(${debian}/changelog.in ${PROJECT_BINARY_DIR}/changelog @ONLY)
install(CODE "
  execute_process(COMMAND gzip -9nc ${PROJECT_BINARY_DIR}/changelog OUTPUT_FILE ${made}/changelog.gz
                  COMMAND_ERROR_IS_FATAL ANY)"
  COMPONENT debian)
install(FILES ${made}/changelog.gz ${debian}/copyright DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT debian)
install(FILES ${made}/_snug DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions COMPONENT debian)
install(FILES ${packaging}/snug.service DESTINATION /lib/systemd/system COMPONENT debian)
install(FILES ${packaging}/serve.toml DESTINATION /etc/snug COMPONENT debian)

set(CPACK_GENERATOR DEB)
set(CPACK_INSTALL_CMAKE_PROJECTS "${PROJECT_BINARY_DIR};snug;program;/;${PROJECT_BINARY_DIR};snug;debian;/")
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_NAME snug)
set(CPACK_PACKAGE_CONTACT ${SNUG_MAINTAINER})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "language models inside a stated memory budget")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
"It runs and serves language models (GGUF files) on the CPU, within a budget
of memory that is stated for everything: weights, caches, the program itself.
What does not fit is read from the disk, with the same answers. The server
speaks OpenAI's, Anthropic's and Ollama's APIs.")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS ca-certificates)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${debian}/conffiles ${debian}/postinst ${debian}/prerm ${debian}/postrm)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
