// Preloaded into `snug` by the tests: pread fails with EIO from the byte SNUG_TEST_FAIL_FROM on.

#include <dlfcn.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace {

ssize_t read_or_fail(const char* symbol, int fd, void* data, size_t size, off_t offset) {
  using Pread = ssize_t (*)(int, void*, size_t, off_t);
  const auto real = reinterpret_cast<Pread>(dlsym(RTLD_NEXT, symbol));
  const char* from = std::getenv("SNUG_TEST_FAIL_FROM");
  if (from && offset + static_cast<off_t>(size) > std::atoll(from)) return errno = EIO, -1;
  return real(fd, data, size, offset);
}

}  // namespace

extern "C" ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  return read_or_fail("pread", fd, data, size, offset);
}
extern "C" ssize_t pread64(int fd, void* data, size_t size, off_t offset) {
  return read_or_fail("pread64", fd, data, size, offset);
}
