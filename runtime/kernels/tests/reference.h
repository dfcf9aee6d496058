// The generation blocks by their definition: plain loops, sums in double.
#ifndef GALIP_KERNELS_REFERENCE_H_
#define GALIP_KERNELS_REFERENCE_H_

#include <vector>

#include "galip_kernels.h"

namespace reference {

// One picture. `features` and `affines` are as for `galip_blocks_run`; picture `index` of them is computed.
// Returns the image, (3, H', W') of the last block.
std::vector<float> image_of(const galip_block *blocks, int count, const float *image_weight, const float *image_bias,
                            const float *features, const float *const *affines, int64_t index);

// [-1, 1] to 0 ... 255, clamped and rounded to nearest even.
uint8_t pixel_of(float value);

}  // namespace reference

#endif  // GALIP_KERNELS_REFERENCE_H_
