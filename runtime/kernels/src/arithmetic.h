// The loops that are written with vectors, compiled once for each set of instructions.
//
// A feature map is (height, width, padded(channels)): channels beyond the last are zeros.
#ifndef GALIP_ARITHMETIC_H_
#define GALIP_ARITHMETIC_H_

#include <cstddef>
#include <cstdint>

#include "convolution.h"

namespace galip {

// leaky(g1 * leaky(g0 * x + b0) + b1): coefficients of one picture, each padded(channels).
struct Affines {
  const float *gamma0, *beta0, *gamma1, *beta1;
};

// What follows a convolution: the affines and LeakyReLUs of df where `affines` is given, otherwise the sum with bias
// and shortcut.
struct Epilogue {
  const Affines *affines = nullptr;  // of each picture, with the convolution's bias in beta0
  const float *bias = nullptr;       // padded(channels)
  const float *shortcut = nullptr;   // feature maps of the convolution's input size, a picture each
  Size shortcut_size = {0, 0};
  const int *shortcut_rows = nullptr, *shortcut_columns = nullptr;  // of each row and column of the output
  bool leaky = false;                                               // at the very end
};

// Tiles that follow one another, counted through all pictures.
struct Tiles {
  int64_t first;
  int count;
};

struct Arithmetic {
  const char *name;
  int lanes;  // floats in a vector

  // Right matrices (depth, columns) are packed in panels of two vectors of columns, depth by depth.
  size_t packed_size(int depth, int columns) const { return size_t(depth) * round_up(columns, lanes); }
  size_t packed_index(int depth, int columns, int row, int column) const {
    const int width = 2 * lanes, panel = column / width;
    const int last = round_up(columns, lanes) - panel * width;
    return size_t(panel) * depth * width + size_t(row) * (last < width ? last : width) + column % width;
  }
  int panels(int columns) const { return ceil_div(columns, 2 * lanes); }

  // result (rows, columns) = left (rows, depth) * right, panels `first_panel` ... `end_panel` - 1 of it alone.
  // Each element is summed in the order of depth, whatever the number of rows.
  void (*multiply)(const float *left, size_t left_stride, int64_t rows, const float *right, int depth, int columns,
                   float *result, size_t result_stride, int first_panel, int end_panel);

  // The tiles' transformed inputs: (points, tiles, padded(Ci)), points `point_stride` floats apart. `x`: feature
  // maps of the input size, a picture each. `zeros`: padded(Ci) zeros.
  void (*transform_input)(const Convolution &convolution, const float *x, const float *zeros, Tiles tiles,
                          float *transformed, size_t point_stride);

  // The tiles' outputs, of products (points, tiles, padded(Co)), into the feature maps `y` of the output size.
  void (*transform_output)(const Convolution &convolution, const float *products, size_t point_stride, Tiles tiles,
                           const Epilogue &epilogue, float *y);

  // Apply `affines` to pixels of one picture, in place.
  void (*activate)(float *x, int64_t pixels, int channels, const Affines &affines);

  // A row of the image from products (height, width, stride) of each pixel with all taps: product tap * 3 + channel
  // of the pixel that the tap reads. `bias`: four floats. `image`: channel 0's row, channels `image_stride` floats
  // apart, or NULL; `pixels`: the row, or NULL. Returns whether all is finite.
  bool (*image_row)(const float *above, const float *here, const float *below, size_t stride, int width,
                    const float *bias, float *image, size_t image_stride, uint8_t *pixels);
};

// Taps of a 3x3 convolution times the image's channels.
constexpr int kImageColumns = 27;

// That of GALIP_KERNELS_TARGET, or the best of this CPU; NULL if there is none.
const Arithmetic *arithmetic();

}  // namespace galip

#endif  // GALIP_ARITHMETIC_H_
