#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/error.hpp"
#include "kernels/kernels.hpp"
#include "kernels/matmul_scratch.hpp"

namespace snug {

#if defined(SNUG_HAVE_scalar)
namespace scalar {
const KernelTable& table();
}
#endif
#if defined(SNUG_HAVE_avx2)
namespace avx2 {
const KernelTable& table();
}
#endif
#if defined(SNUG_HAVE_avx512)
namespace avx512 {
const KernelTable& table();
}
#endif
#if defined(SNUG_HAVE_neon)
namespace neon {
const KernelTable& table();
}
#endif

std::vector<const KernelTable*> available_kernels() {
  std::vector<const KernelTable*> tables{&scalar::table()};
#if defined(SNUG_HAVE_avx2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    tables.push_back(&avx2::table());
#endif
#if defined(SNUG_HAVE_avx512)
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") &&
      __builtin_cpu_supports("avx512vbmi"))
    tables.push_back(&avx512::table());
#endif
#if defined(SNUG_HAVE_neon)
  tables.push_back(&neon::table());
#endif
  return tables;
}

namespace {

const KernelTable& choose() {
  const std::vector<const KernelTable*> tables = available_kernels();
  const char* wanted = std::getenv("SNUG_ISA");
  if (!wanted || !*wanted) return *tables.back();
  std::string names;
  for (const KernelTable* table : tables) {
    if (table->name == wanted) return *table;
    names += names.empty() ? "" : ", ";
    names += table->name;
  }
  fail<UsageError>("SNUG_ISA={} is not available here: choose from {}", wanted, names);
}

}  // namespace

const KernelTable& kernels() {
  static const KernelTable& chosen = choose();
  return chosen;
}

std::size_t matmul_scratch_bytes(std::size_t cols) {
  return panel_bytes(cols) + std::max(few_rows_bytes(cols), starts_bytes(cols) + fine_rows_bytes(cols));
}

}  // namespace snug
