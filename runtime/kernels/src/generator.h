// All generation blocks of a generator, and the image.
#ifndef GALIP_GENERATOR_H_
#define GALIP_GENERATOR_H_

#include <string>
#include <vector>

#include "galip_kernels.h"
#include "generation_block.h"

namespace galip {

class Generator {
 public:
  // Throws std::invalid_argument, std::bad_alloc, or std::system_error where no thread can be started.
  Generator(const galip_block *blocks, int count, const float *image_weight, const float *image_bias, int threads);

  // As `galip_blocks_run`; returns whether all is finite.
  bool run(int64_t pictures, const float *features, const float *const *affines, float *image, uint8_t *pixels);

  size_t bytes() const;
  const char *algorithms() const { return algorithms_.c_str(); }

 private:
  void reserve(int64_t pictures);
  void read_affines(const float *const *affines, int64_t first, int64_t pictures);
  float *read_features(const float *features, int64_t first, int64_t pictures);
  float *run_block(int number, int64_t first, int64_t pictures, float *x, Floats (&maps)[2]);
  bool write_image(const float *y, float *image, uint8_t *pixels);

  ThreadPool pool_;
  std::vector<GenerationBlock> blocks_;
  int together_ = 0;  // blocks that compute several pictures at once
  Floats image_weight_, image_bias_;
  Workspace workspace_;
  Floats maps_together_[2], maps_[2];  // inputs and outputs of the blocks by turns
  Floats hidden_, shortcut_;
  Floats image_products_;
  std::string algorithms_;
};

}  // namespace galip

#endif  // GALIP_GENERATOR_H_
