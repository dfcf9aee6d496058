// Matrix products. Included once for each target.
#include "arithmetic.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace galip {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using Vector = hn::Vec<F32>;
constexpr F32 kF32;
constexpr int kLanes = int(hn::MaxLanes(kF32));

// Rows x 2 vectors of sums stay in registers, of which there are 32 or 16.
constexpr int kRows = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON ? 12 : 6;

// So many steps before they are used, weights are fetched into the cache, which gives a tenth of the time.
constexpr int kStepsAhead = 32;

// Rows x (Vectors * kLanes) elements of the result.
template <int Rows, int Vectors>
HWY_INLINE void multiply_tile(const float *HWY_RESTRICT left, size_t left_stride, const float *HWY_RESTRICT right,
                              int depth, float *HWY_RESTRICT result, size_t result_stride) {
  Vector sums[Rows][Vectors];
  for (int row = 0; row < Rows; ++row)
    for (int v = 0; v < Vectors; ++v) sums[row][v] = hn::Zero(kF32);
  for (int k = 0; k < depth; ++k, right += Vectors * kLanes) {
    Vector weights[Vectors];
    for (int v = 0; v < Vectors; ++v) {
      weights[v] = hn::Load(kF32, right + v * kLanes);
      hwy::Prefetch(right + (kStepsAhead * Vectors + v) * kLanes);
    }
    for (int row = 0; row < Rows; ++row) {
      const Vector x = hn::Set(kF32, left[row * left_stride + k]);
      for (int v = 0; v < Vectors; ++v) sums[row][v] = hn::MulAdd(x, weights[v], sums[row][v]);
    }
  }
  for (int row = 0; row < Rows; ++row)
    for (int v = 0; v < Vectors; ++v) hn::Store(sums[row][v], kF32, result + row * result_stride + v * kLanes);
}

template <int Rows, int Vectors>
HWY_INLINE void multiply_rows(int rows, const float *left, size_t left_stride, const float *right, int depth,
                              float *result, size_t result_stride) {
  if constexpr (Rows > 0) {
    if (rows == Rows)
      multiply_tile<Rows, Vectors>(left, left_stride, right, depth, result, result_stride);
    else
      multiply_rows<Rows - 1, Vectors>(rows, left, left_stride, right, depth, result, result_stride);
  }
}

template <int Vectors>
HWY_NOINLINE void multiply_panel(const float *left, size_t left_stride, int64_t rows, const float *right, int depth,
                                 float *result, size_t result_stride) {
  for (int64_t groups = ceil_div<int64_t>(rows, kRows); groups > 0; --groups) {
    const int count = int(ceil_div(rows, groups));  // groups of nearly equal size
    multiply_rows<kRows, Vectors>(count, left, left_stride, right, depth, result, result_stride);
    left += count * left_stride;
    result += count * result_stride;
    rows -= count;
  }
}

HWY_NOINLINE void multiply(const float *left, size_t left_stride, int64_t rows, const float *right, int depth,
                           int columns, float *result, size_t result_stride, int first_panel, int end_panel) {
  constexpr int width = 2 * kLanes;
  for (int panel = first_panel; panel < end_panel; ++panel) {
    const float *packed = right + size_t(panel) * depth * width;
    float *part = result + panel * width;
    if (columns - panel * width > kLanes)
      multiply_panel<2>(left, left_stride, rows, packed, depth, part, result_stride);
    else
      multiply_panel<1>(left, left_stride, rows, packed, depth, part, result_stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace galip
HWY_AFTER_NAMESPACE();
