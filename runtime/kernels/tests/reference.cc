#include "reference.h"

#include <algorithm>
#include <cmath>

namespace reference {
namespace {

struct Map {
  int channels, height, width;
  std::vector<double> values;

  Map(int c, int h, int w) : channels(c), height(h), width(w), values(size_t(c) * h * w) {}
  double &at(int c, int y, int x) { return values[(size_t(c) * height + y) * width + x]; }
  double at(int c, int y, int x) const { return values[(size_t(c) * height + y) * width + x]; }
};

double leaky(double value) { return std::isnan(value) ? value : std::max(value, 0.2 * value); }

// affines: g0, b0, g1, b1, each (N, C); those of picture `index`
Map fused(Map map, const float *const *affines, int64_t index) {
  for (int c = 0; c < map.channels; ++c) {
    const int64_t at = index * map.channels + c;
    for (int y = 0; y < map.height; ++y) {
      for (int x = 0; x < map.width; ++x) {
        const double first = leaky(affines[0][at] * map.at(c, y, x) + affines[1][at]);
        map.at(c, y, x) = leaky(affines[2][at] * first + affines[3][at]);
      }
    }
  }
  return map;
}

Map upsampled(const Map &map, int height, int width) {
  Map result(map.channels, height, width);
  for (int c = 0; c < map.channels; ++c) {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        result.at(c, y, x) = map.at(c, int(int64_t(y) * map.height / height), int(int64_t(x) * map.width / width));
      }
    }
  }
  return result;
}

// weight: (Co, C, size, size), size 1 or 3, padded to keep height and width
Map convolved(const Map &map, int out_channels, int size, const float *weight, const float *bias) {
  Map result(out_channels, map.height, map.width);
  const int pad = size / 2;
  for (int o = 0; o < out_channels; ++o) {
    for (int y = 0; y < map.height; ++y) {
      for (int x = 0; x < map.width; ++x) {
        double sum = bias[o];
        for (int c = 0; c < map.channels; ++c) {
          for (int dy = 0; dy < size; ++dy) {
            for (int dx = 0; dx < size; ++dx) {
              const int row = y + dy - pad, column = x + dx - pad;
              if (row < 0 || row >= map.height || column < 0 || column >= map.width) continue;
              sum += weight[((size_t(o) * map.channels + c) * size + dy) * size + dx] * map.at(c, row, column);
            }
          }
        }
        result.at(o, y, x) = sum;
      }
    }
  }
  return result;
}

Map grown(const galip_block &block, const Map &map, const float *const *affines, int64_t index) {
  const int height = block.out_height, width = block.out_width, channels = block.out_channels;
  const Map wide = upsampled(fused(map, affines, index), height, width);
  const Map hidden = convolved(wide, channels, 3, block.conv1_weight, block.conv1_bias);
  Map result = convolved(fused(hidden, affines + 4, index), channels, 3, block.conv2_weight, block.conv2_bias);
  Map shortcut = upsampled(map, height, width);
  if (block.shortcut_weight) {
    shortcut = convolved(shortcut, channels, 1, block.shortcut_weight, block.shortcut_bias);
  }
  for (size_t i = 0; i < result.values.size(); ++i) result.values[i] += shortcut.values[i];
  return result;
}

}  // namespace

std::vector<float> image_of(const galip_block *blocks, int count, const float *image_weight, const float *image_bias,
                            const float *features, const float *const *affines, int64_t index) {
  Map map(blocks[0].in_channels, blocks[0].in_height, blocks[0].in_width);
  const float *first = features + index * int64_t(map.values.size());
  std::copy(first, first + map.values.size(), map.values.begin());
  for (int i = 0; i < count; ++i) map = grown(blocks[i], map, affines + 8 * i, index);
  for (double &value : map.values) value = leaky(value);
  const Map image = convolved(map, 3, 3, image_weight, image_bias);
  return std::vector<float>(image.values.begin(), image.values.end());
}

uint8_t pixel_of(float value) {
  return uint8_t(std::nearbyint((std::min(std::max(value, -1.0f), 1.0f) + 1.0f) * 127.5f));
}

}  // namespace reference
