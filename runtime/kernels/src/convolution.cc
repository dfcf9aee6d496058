#include "convolution.h"

#include <limits>

#include "arithmetic.h"

namespace galip {
namespace {

// G of F(m, 3), row by row. Row `kZeroPoint` is the one that a doubling makes superfluous.
constexpr int kZeroPoint = 2;
constexpr double kG2[] = {1, 0, 0, .5, .5, .5, .5, -.5, .5, 0, 0, 1};
constexpr double kG4[] = {1. / 4,  0,       0,      -1. / 6, -1. / 6,  -1. / 6, -1. / 6, 1. / 6, -1. / 6,
                          1. / 24, 1. / 12, 1. / 6, 1. / 24, -1. / 12, 1. / 6,  0,       0,      1};
constexpr double kG6[] = {1,        0,       0,        -2. / 9,   -2. / 9, -2. / 9,  -2. / 9, 2. / 9,
                          -2. / 9,  1. / 90, 1. / 45,  2. / 45,   1. / 90, -1. / 45, 2. / 45, 32. / 45,
                          16. / 45, 8. / 45, 32. / 45, -16. / 45, 8. / 45, 0,        0,       1};
constexpr int kTiles[] = {2, 4, 6};
constexpr int kMostPoints = 8;

const double *weight_transform(int tile) { return tile == 2 ? kG2 : tile == 4 ? kG4 : kG6; }

int points_of(int tile, bool doubles) { return tile + 2 - (doubles ? 1 : 0); }

// What a byte of weights costs, in multiply-adds: a picture reads each of them once, from main memory where the
// caches are small.
constexpr double kMacsPerByte = 10;

double cost(int tile, bool doubles, Size out, int in_channels, int out_channels) {
  const double points = points_of(tile, doubles) * points_of(tile, doubles);
  const double tiles = double(ceil_div(out.height, tile)) * ceil_div(out.width, tile);
  const double weights = points * in_channels * out_channels;
  return tiles * weights + kMacsPerByte * sizeof(float) * weights;
}

TileAxis tile_axis(int in, int out, int tile, bool doubles) {
  TileAxis axis;
  axis.tiles = ceil_div(out, tile);
  axis.reads = doubles ? tile / 2 + 2 : tile + 2;
  const std::vector<int> nearest = nearest_sources(in, out);
  for (int number = 0; number < axis.tiles; ++number) {
    for (int read = 0; read < axis.reads; ++read) {
      if (doubles) {
        const int source = number * tile / 2 - 1 + read;
        axis.sources.push_back(source < 0 || source >= in ? -1 : source);
      } else {
        const int position = number * tile - 1 + read;
        axis.sources.push_back(position < 0 || position >= out ? -1 : nearest[position]);
      }
    }
  }
  return axis;
}

}  // namespace

std::vector<int> nearest_sources(int in, int out) {
  std::vector<int> sources(out);
  for (int position = 0; position < out; ++position) sources[position] = int(int64_t{position} * in / out);
  return sources;
}

Convolution::Convolution(const float *weight, int in_channels, int out_channels, Size in, Size out, ThreadPool &pool)
    : in_channels_(in_channels),
      out_channels_(out_channels),
      in_(in),
      out_(out),
      doubles_(out.height == 2 * in.height && out.width == 2 * in.width) {
  choose_tile();
  rows_ = tile_axis(in.height, out.height, tile_, doubles_);
  columns_ = tile_axis(in.width, out.width, tile_, doubles_);
  transform_weights(weight, pool);
}

void Convolution::choose_tile() {
  double least = std::numeric_limits<double>::infinity();
  for (int tile : kTiles) {
    const double of_tile = cost(tile, doubles_, out_, in_channels_, out_channels_);
    if (of_tile >= least) continue;
    least = of_tile;
    tile_ = tile;
  }
  side_ = points_of(tile_, doubles_);
}

void Convolution::transform_weights(const float *weight, ThreadPool &pool) {
  const Arithmetic &arithmetic = *galip::arithmetic();
  const double *g = weight_transform(tile_);
  weights_of_point_ = arithmetic.packed_size(in_channels_, out_channels_);
  weights_.reserve(weights_of_point_ * points());
  double rows[kMostPoints][3];
  int side = 0;
  for (int row = 0; row < tile_ + 2; ++row) {
    if (doubles_ && row == kZeroPoint) continue;
    for (int tap = 0; tap < 3; ++tap) rows[side][tap] = g[row * 3 + tap];
    ++side;
  }
  pool.run(in_channels_, [&](int64_t in, int) {
    for (int out = 0; out < out_channels_; ++out) {
      const float *w = weight + (int64_t{out} * in_channels_ + in) * 9;
      double half[kMostPoints][3];  // G w
      for (int row = 0; row < side_; ++row)
        for (int tap = 0; tap < 3; ++tap)
          half[row][tap] = rows[row][0] * w[tap] + rows[row][1] * w[3 + tap] + rows[row][2] * w[6 + tap];
      float *packed = weights_.data() + arithmetic.packed_index(in_channels_, out_channels_, int(in), out);
      for (int row = 0; row < side_; ++row)
        for (int column = 0; column < side_; ++column, packed += weights_of_point_)
          *packed =
              float(half[row][0] * rows[column][0] + half[row][1] * rows[column][1] + half[row][2] * rows[column][2]);
    }
  });
}

std::string Convolution::algorithm() const {
  const std::string size = std::to_string(tile_) + "x" + std::to_string(tile_);
  return "F(" + size + ",3x3)" + (doubles_ ? " of a doubling" : "");
}

}  // namespace galip
