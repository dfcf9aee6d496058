// The C interface on top of the reference: a library that is slow and plain, to compare the kernels with.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "reference.h"

struct galip_blocks {
  std::vector<galip_block> blocks;
  std::vector<std::vector<float>> weights;  // what the pointers in `blocks` point to
  const float *image_weight, *image_bias;
  std::string algorithms;

  const float *copy(const float *values, size_t count) {
    if (!values) return nullptr;
    weights.emplace_back(values, values + count);
    return weights.back().data();
  }
};

namespace {

const char *problem_of(const galip_block *blocks, int32_t count, const float *image_weight, const float *image_bias,
                       int32_t threads) {
  if (!blocks || !image_weight || !image_bias) return "an argument is NULL";
  if (count < 1 || threads < 1) return "count and threads must be at least 1";
  for (int32_t i = 0; i < count; ++i) {
    const galip_block &b = blocks[i];
    if (b.in_channels < 1 || b.out_channels < 1) return "a block has no channels";
    if (b.in_height < 1 || b.in_width < 1) return "a block has no pixels";
    if (b.out_height < b.in_height || b.out_width < b.in_width) return "out is smaller than in";
    if (b.out_height / 64 >= b.in_height || b.out_width / 64 >= b.in_width) return "out is 64 times in or more";
    if (!b.conv1_weight || !b.conv1_bias || !b.conv2_weight || !b.conv2_bias) return "a block lacks weights";
    if (!b.shortcut_weight != !b.shortcut_bias) return "a shortcut has a weight or a bias, not both";
    if (!b.shortcut_weight && b.in_channels != b.out_channels) return "a block lacks its shortcut";
    if (i > 0 && (b.in_channels != blocks[i - 1].out_channels || b.in_height != blocks[i - 1].out_height ||
                  b.in_width != blocks[i - 1].out_width)) {
      return "a block's input is not the output of the block before it";
    }
  }
  return nullptr;
}

}  // namespace

extern "C" {

int32_t galip_kernels_abi(void) { return GALIP_KERNELS_ABI; }

const char *galip_kernels_target(void) { return "reference"; }

galip_blocks *galip_blocks_open(const galip_block *blocks, int32_t count, const float *image_weight,
                                const float *image_bias, int32_t threads, char *error, size_t error_size) {
  if (const char *problem = problem_of(blocks, count, image_weight, image_bias, threads)) {
    if (error && error_size) std::snprintf(error, error_size, "%s", problem);
    return nullptr;
  }
  auto result = std::make_unique<galip_blocks>();
  for (int32_t i = 0; i < count; ++i) {
    galip_block b = blocks[i];
    const size_t in = b.in_channels, out = b.out_channels;
    b.conv1_weight = result->copy(b.conv1_weight, out * in * 9);
    b.conv1_bias = result->copy(b.conv1_bias, out);
    b.conv2_weight = result->copy(b.conv2_weight, out * out * 9);
    b.conv2_bias = result->copy(b.conv2_bias, out);
    b.shortcut_weight = result->copy(b.shortcut_weight, out * in);
    b.shortcut_bias = result->copy(b.shortcut_bias, out);
    result->blocks.push_back(b);
    const std::string name = "blocks." + std::to_string(i);
    result->algorithms += name + ".conv1 direct\n" + name + ".conv2 direct\n";
  }
  result->image_weight = result->copy(image_weight, size_t(27) * blocks[count - 1].out_channels);
  result->image_bias = result->copy(image_bias, 3);
  result->algorithms += "image direct\n";
  return result.release();
}

int32_t galip_blocks_run(galip_blocks *blocks, int64_t pictures, const float *features, const float *const *affines,
                         float *image, uint8_t *pixels) {
  const galip_block &last = blocks->blocks.back();
  const size_t area = size_t(last.out_height) * last.out_width;
  int32_t status = GALIP_OK;
  for (int64_t n = 0; n < pictures; ++n) {
    const std::vector<float> result =
        reference::image_of(blocks->blocks.data(), int(blocks->blocks.size()), blocks->image_weight, blocks->image_bias,
                            features, affines, n);
    for (size_t i = 0; i < result.size(); ++i) {
      if (!std::isfinite(result[i])) status = GALIP_NOT_FINITE;
      if (pixels && std::isfinite(result[i])) {
        pixels[(n * area + i % area) * 3 + i / area] = reference::pixel_of(result[i]);
      }
    }
    if (image) std::copy(result.begin(), result.end(), image + n * int64_t(result.size()));
  }
  return status;
}

int64_t galip_blocks_memory(const galip_blocks *blocks) {
  int64_t bytes = 0;
  for (const auto &weight : blocks->weights) bytes += int64_t(weight.size() * sizeof(float));
  return bytes;
}

const char *galip_blocks_algorithms(const galip_blocks *blocks) { return blocks->algorithms.c_str(); }

void galip_blocks_close(galip_blocks *blocks) { delete blocks; }

}  // extern "C"
