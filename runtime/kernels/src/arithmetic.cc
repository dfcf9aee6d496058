#include "arithmetic.h"

#include <cstdlib>
#include <cstring>

// Highway is used by its headers alone, so that nothing of it has to be linked: `arithmetic` below chooses a target
// as its dynamic dispatch would.
// SVE's vectors cannot be elements of arrays; CPUs that have it run NEON.
#define HWY_DISABLED_TARGETS (~(HWY_AVX3 | HWY_AVX2 | HWY_SSE4 | HWY_NEON | HWY_SCALAR))
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "arithmetic.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#if HWY_TARGET != HWY_SCALAR  // which Highway always adds, and no CPU needs
#include "multiply-inl.h"
#include "transforms-inl.h"
#include "winograd-inl.h"
#include "image-inl.h"

HWY_BEFORE_NAMESPACE();
namespace galip {
namespace HWY_NAMESPACE {

Arithmetic arithmetic_of(const char *name) {
  return {name, kLanes, multiply, transform_input, transform_output, activate, image_row};
}

}  // namespace HWY_NAMESPACE
}  // namespace galip
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace galip {
namespace {

// The arithmetic called `name`, or the best where it is NULL; NULL where this CPU lacks the instructions.
const Arithmetic *find(const char *name) {
#if HWY_TARGETS & HWY_AVX3
  static const Arithmetic avx512 = N_AVX3::arithmetic_of("AVX-512");
  if ((!name || !std::strcmp(name, avx512.name)) && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return &avx512;
#endif
#if HWY_TARGETS & HWY_AVX2
  static const Arithmetic avx2 = N_AVX2::arithmetic_of("AVX2");
  if ((!name || !std::strcmp(name, avx2.name)) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    return &avx2;
#endif
#if HWY_TARGETS & HWY_SSE4
  static const Arithmetic sse4 = N_SSE4::arithmetic_of("SSE4");
  if ((!name || !std::strcmp(name, sse4.name)) && __builtin_cpu_supports("sse4.2")) return &sse4;
#endif
#if HWY_TARGETS & HWY_NEON
  static const Arithmetic neon = N_NEON::arithmetic_of("NEON");
  if (!name || !std::strcmp(name, neon.name)) return &neon;
#endif
  return nullptr;
}

}  // namespace

const Arithmetic *arithmetic() {
  static const Arithmetic *const chosen = [] {
    const Arithmetic *asked = nullptr;
    if (const char *name = std::getenv("GALIP_KERNELS_TARGET")) asked = find(name);
    return asked ? asked : find(nullptr);
  }();
  return chosen;
}

}  // namespace galip
#endif  // HWY_ONCE
