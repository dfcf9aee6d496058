#include "generation_block.h"

#include <algorithm>

namespace galip {
namespace {

// A thread transforms, multiplies and transforms back this many bytes at a time, so that they stay in its cache.
constexpr size_t kChunkBytes = 1 << 20;
// Weights that exceed this are not read again for each chunk: all threads work on all tiles together, or on as many
// as fit into kSharedBytes.
constexpr size_t kLargeWeights = 5 << 20;
constexpr size_t kSharedBytes = 16 << 20;
constexpr int kLeastTiles = 24;
constexpr int64_t kPixelsAtOnce = 192;  // of the shortcut
constexpr size_t kApart = 16;           // floats between points, which must not all fall into one set of the cache

struct Chunking {
  int tiles;         // in a chunk
  size_t in_stride;  // floats between points
  size_t out_stride;
};

Chunking chunking(const Convolution &convolution, int64_t tiles, size_t bytes) {
  const size_t in = padded(convolution.in_channels()), out = padded(convolution.out_channels());
  const size_t of_tile = convolution.points() * (in + out) * sizeof(float);
  const int64_t most = std::max<int64_t>(kLeastTiles, int64_t(bytes / of_tile) / kLeastTiles * kLeastTiles);
  const int64_t chunks = ceil_div(tiles, most);
  const int count = int(ceil_div(tiles, chunks));
  return {count, count * in + kApart, count * out + kApart};
}

// Threads work on chunks of their own.
void convolve_apart(const Convolution &convolution, int64_t tiles, const float *x, const Epilogue &epilogue, float *y,
                    Workspace &workspace) {
  const Arithmetic &arithmetic = *galip::arithmetic();
  const int64_t share = ceil_div<int64_t>(tiles, 2 * workspace.pool.threads());  // two: one thread may be late
  const Chunking chunk = chunking(convolution, share, kChunkBytes);
  const int points = convolution.points(), threads = workspace.pool.threads();
  const int panels = arithmetic.panels(convolution.out_channels());
  workspace.transformed.reserve(points * chunk.in_stride * threads);
  workspace.products.reserve(points * chunk.out_stride * threads);
  workspace.pool.run(ceil_div<int64_t>(tiles, chunk.tiles), [&](int64_t index, int thread) {
    float *transformed = workspace.transformed.data() + thread * points * chunk.in_stride;
    float *products = workspace.products.data() + thread * points * chunk.out_stride;
    const Tiles part = {index * chunk.tiles, int(std::min<int64_t>(chunk.tiles, tiles - index * chunk.tiles))};
    arithmetic.transform_input(convolution, x, workspace.zeros.data(), part, transformed, chunk.in_stride);
    for (int point = 0; point < points; ++point)
      arithmetic.multiply(transformed + point * chunk.in_stride, padded(convolution.in_channels()), part.count,
                          convolution.weights(point), convolution.in_channels(), convolution.out_channels(),
                          products + point * chunk.out_stride, padded(convolution.out_channels()), 0, panels);
    arithmetic.transform_output(convolution, products, chunk.out_stride, part, epilogue, y);
  });
}

// Threads share each chunk: each multiplies with a part of the weights.
void convolve_together(const Convolution &convolution, int64_t tiles, const float *x, const Epilogue &epilogue,
                       float *y, Workspace &workspace) {
  const Arithmetic &arithmetic = *galip::arithmetic();
  const Chunking chunk = chunking(convolution, tiles, kSharedBytes);
  const int points = convolution.points();
  const int panels = arithmetic.panels(convolution.out_channels());
  const int parts = std::min(panels, ceil_div(4 * workspace.pool.threads(), points));  // of a point's panels
  workspace.transformed.reserve(points * chunk.in_stride);
  workspace.products.reserve(points * chunk.out_stride);
  float *transformed = workspace.transformed.data(), *products = workspace.products.data();
  for (int64_t first = 0; first < tiles; first += chunk.tiles) {
    const int count = int(std::min<int64_t>(chunk.tiles, tiles - first));
    workspace.pool.run(count, [&](int64_t tile, int) {
      arithmetic.transform_input(convolution, x, workspace.zeros.data(), {first + tile, 1},
                                 transformed + tile * padded(convolution.in_channels()), chunk.in_stride);
    });
    workspace.pool.run(int64_t{points} * parts, [&](int64_t index, int) {
      const int point = int(index / parts), part = int(index % parts);
      arithmetic.multiply(transformed + point * chunk.in_stride, padded(convolution.in_channels()), count,
                          convolution.weights(point), convolution.in_channels(), convolution.out_channels(),
                          products + point * chunk.out_stride, padded(convolution.out_channels()),
                          panels * part / parts, panels * (part + 1) / parts);
    });
    workspace.pool.run(count, [&](int64_t tile, int) {
      arithmetic.transform_output(convolution, products + tile * padded(convolution.out_channels()), chunk.out_stride,
                                  {first + tile, 1}, epilogue, y);
    });
  }
}

Floats copy_padded(const float *values, int count) {
  Floats result(padded(count));
  std::copy_n(values, count, result.data());
  return result;
}

}  // namespace

size_t Workspace::bytes() const { return zeros.bytes() + transformed.bytes() + products.bytes(); }

void convolve(const Convolution &convolution, int64_t pictures, const float *x, const Epilogue &epilogue, float *y,
              Workspace &workspace) {
  const int64_t tiles = pictures * convolution.tiles();
  (convolution.bytes() > kLargeWeights ? convolve_together : convolve_apart)(convolution, tiles, x, epilogue, y,
                                                                             workspace);
}

GenerationBlock::GenerationBlock(const galip_block &block, ThreadPool &pool)
    : conv1_(block.conv1_weight, block.in_channels, block.out_channels, {block.in_height, block.in_width},
             {block.out_height, block.out_width}, pool),
      conv2_(block.conv2_weight, block.out_channels, block.out_channels, {block.out_height, block.out_width},
             {block.out_height, block.out_width}, pool),
      bias1_(copy_padded(block.conv1_bias, block.out_channels)),
      bias2_(copy_padded(block.conv2_bias, block.out_channels)),
      shortcut_rows_(nearest_sources(block.in_height, block.out_height)),
      shortcut_columns_(nearest_sources(block.in_width, block.out_width)) {
  if (!block.shortcut_weight) return;
  const Arithmetic &arithmetic = *galip::arithmetic();
  shortcut_weight_.reserve(arithmetic.packed_size(in_channels(), out_channels()));
  for (int out = 0; out < out_channels(); ++out) {
    bias2_.data()[out] += block.shortcut_bias[out];
    for (int in = 0; in < in_channels(); ++in)
      shortcut_weight_.data()[arithmetic.packed_index(in_channels(), out_channels(), in, out)] =
          block.shortcut_weight[int64_t{out} * in_channels() + in];
  }
}

size_t GenerationBlock::bytes() const {
  return conv1_.bytes() + conv2_.bytes() + shortcut_weight_.bytes() + coefficients_.bytes();
}

void GenerationBlock::read_affines(const float *const *affines, int64_t first, int64_t pictures) {
  const size_t in = padded(in_channels()), out = padded(out_channels()), of_picture = 4 * (in + out);
  coefficients_.reserve(of_picture * pictures);
  affines1_.resize(pictures);
  affines2_.resize(pictures);
  for (int64_t picture = 0; picture < pictures; ++picture) {
    float *to = coefficients_.data() + picture * of_picture;
    float *copies[8];
    for (int i = 0; i < 8; ++i) {
      const int channels = i < 4 ? in_channels() : out_channels();
      copies[i] = std::copy_n(affines[i] + (first + picture) * channels, channels, to) - channels;
      to += padded(channels);
    }
    for (int channel = 0; channel < out_channels(); ++channel)
      copies[5][channel] += copies[4][channel] * bias1_.data()[channel];
    affines1_[picture] = {copies[0], copies[1], copies[2], copies[3]};
    affines2_[picture] = {copies[4], copies[5], copies[6], copies[7]};
  }
}

// Compute the shortcut of `x`, and df1 of `x` in its place.
void GenerationBlock::split(int64_t first, int64_t pictures, float *x, float *shortcut, ThreadPool &pool) const {
  const Arithmetic &arithmetic = *galip::arithmetic();
  const int64_t pixels = int64_t{in().height} * in().width, parts = ceil_div(pixels, kPixelsAtOnce);
  const size_t stride = padded(in_channels()), shortcut_stride = padded(out_channels());
  pool.run(pictures * parts, [&](int64_t index, int) {
    const int64_t picture = index / parts, pixel = index % parts * kPixelsAtOnce;
    const int64_t count = std::min(kPixelsAtOnce, pixels - pixel);
    float *from = x + (picture * pixels + pixel) * stride;
    float *to = shortcut + (picture * pixels + pixel) * shortcut_stride;
    if (shortcut_weight_.size())
      arithmetic.multiply(from, stride, count, shortcut_weight_.data(), in_channels(), out_channels(), to,
                          shortcut_stride, 0, arithmetic.panels(out_channels()));
    else
      std::copy_n(from, count * stride, to);
    arithmetic.activate(from, count, in_channels(), affines1_[first + picture]);
  });
}

void GenerationBlock::run(int64_t first, int64_t pictures, float *x, float *shortcut, float *hidden, float *y,
                          bool leaky, Workspace &workspace) {
  split(first, pictures, x, shortcut, workspace.pool);
  Epilogue activate;
  activate.affines = affines2_.data() + first;
  convolve(conv1_, pictures, x, activate, hidden, workspace);
  Epilogue add;
  add.bias = bias2_.data();
  add.shortcut = shortcut;
  add.shortcut_size = in();
  add.shortcut_rows = shortcut_rows_.data();
  add.shortcut_columns = shortcut_columns_.data();
  add.leaky = leaky;
  convolve(conv2_, pictures, hidden, add, y, workspace);
}

}  // namespace galip
