// A generation block: two Winograd convolutions, a shortcut, and affines between them.
#ifndef GALIP_GENERATION_BLOCK_H_
#define GALIP_GENERATION_BLOCK_H_

#include <string>
#include <vector>

#include "arithmetic.h"
#include "convolution.h"
#include "galip_kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace galip {

// Working memory that all convolutions share. It grows with the first runs.
struct Workspace {
  Workspace(ThreadPool &pool, int most_channels) : pool(pool), zeros(padded(most_channels)) {}

  size_t bytes() const;

  ThreadPool &pool;
  Floats zeros;
  Floats transformed, products;  // of all threads' tiles
};

// Run `convolution` on `pictures` feature maps `x`, into `y`.
void convolve(const Convolution &convolution, int64_t pictures, const float *x, const Epilogue &epilogue, float *y,
              Workspace &workspace);

class GenerationBlock {
 public:
  GenerationBlock(const galip_block &block, ThreadPool &pool);

  int in_channels() const { return conv1_.in_channels(); }
  int out_channels() const { return conv1_.out_channels(); }
  Size in() const { return conv1_.in(); }
  Size out() const { return conv1_.out(); }
  size_t in_floats() const { return size_t(in().height) * in().width * padded(in_channels()); }  // of a picture
  size_t out_floats() const { return size_t(out().height) * out().width * padded(out_channels()); }
  size_t shortcut_floats() const { return size_t(in().height) * in().width * padded(out_channels()); }
  const Convolution &conv1() const { return conv1_; }
  const Convolution &conv2() const { return conv2_; }
  size_t bytes() const;

  // Read the coefficients of pictures `first` ... `first + pictures - 1` from what `galip_blocks_run` takes.
  void read_affines(const float *const *affines, int64_t first, int64_t pictures);

  // Compute `y` from `x`, feature maps of pictures `first` ... `first + pictures - 1`, where 0 is the first that
  // `read_affines` has read. `x` is overwritten; `hidden` is as large as `y`, `shortcut` as `shortcut_floats` says.
  void run(int64_t first, int64_t pictures, float *x, float *shortcut, float *hidden, float *y, bool leaky,
           Workspace &workspace);

 private:
  void split(int64_t first, int64_t pictures, float *x, float *shortcut, ThreadPool &pool) const;

  Convolution conv1_, conv2_;
  Floats shortcut_weight_;  // packed; empty for the identity
  Floats bias1_, bias2_;    // padded; the shortcut's is part of bias2
  std::vector<int> shortcut_rows_, shortcut_columns_;
  Floats coefficients_;
  std::vector<Affines> affines1_, affines2_;  // of each picture; the second with bias1 inside
};

}  // namespace galip

#endif  // GALIP_GENERATION_BLOCK_H_
