// A 3x3 convolution with padding 1 behind nearest upsampling, as Winograd's algorithm computes it.
//
// F(m x m, 3 x 3) [Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016] computes m x m outputs
// from n x n inputs, n = m + 2: Y = A' ((G W G') * (B' D B)) A, where * multiplies point by point. Summed over the
// input channels, each of the n x n points is a matrix product of its own.
//
// Where the convolution follows a doubling, pairs of inputs are equal: D's rows are a b b c c d. The transform has
// then one row, of B's point -1, that is always zero, and its products are left out: (n-1)^2 of n^2 remain.
#ifndef GALIP_CONVOLUTION_H_
#define GALIP_CONVOLUTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "memory.h"
#include "thread_pool.h"

namespace galip {

struct Size {
  int height, width;
};

// Which part of the input each tile of the output needs, along one axis.
struct TileAxis {
  int tiles = 0;
  int reads = 0;             // inputs that a tile reads
  std::vector<int> sources;  // (tiles, reads): their positions, -1 for padding
};

// The geometry and the transformed weights of a convolution.
class Convolution {
 public:
  // `weight`: (Co, Ci, 3, 3), which may be freed afterwards.
  Convolution(const float *weight, int in_channels, int out_channels, Size in, Size out, ThreadPool &pool);

  int in_channels() const { return in_channels_; }
  int out_channels() const { return out_channels_; }
  Size in() const { return in_; }
  Size out() const { return out_; }
  int tile() const { return tile_; }         // m
  bool doubles() const { return doubles_; }  // whether points are left out
  int side() const { return side_; }         // points along one axis: n, or n - 1
  int points() const { return side_ * side_; }
  const TileAxis &rows() const { return rows_; }
  const TileAxis &columns() const { return columns_; }
  int tiles() const { return rows_.tiles * columns_.tiles; }  // of a picture
  const float *weights(int point) const { return weights_.data() + point * weights_of_point_; }
  size_t bytes() const { return weights_.bytes(); }
  std::string algorithm() const;

 private:
  void choose_tile();
  void transform_weights(const float *weight, ThreadPool &pool);

  int in_channels_, out_channels_;
  Size in_, out_;
  int tile_ = 0, side_ = 0;
  bool doubles_;
  TileAxis rows_, columns_;
  size_t weights_of_point_ = 0;  // floats
  Floats weights_;               // of each point, packed as `Arithmetic::packed_index` says
};

// The source of each position of nearest upsampling from `in` to `out`.
std::vector<int> nearest_sources(int in, int out);

}  // namespace galip

#endif  // GALIP_CONVOLUTION_H_
