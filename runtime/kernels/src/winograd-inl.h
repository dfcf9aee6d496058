// Winograd's transforms of all tiles, B' D B and A' M A, with what follows a convolution. Included once for each
// target, after transforms-inl.h.
HWY_BEFORE_NAMESPACE();
namespace galip {
namespace HWY_NAMESPACE {

HWY_INLINE Vector leaky(Vector v) { return hn::Max(v, times(0.2f, v)); }

struct Coefficients {
  Vector gamma0, beta0, gamma1, beta1;

  HWY_INLINE Coefficients(const Affines &affines, int channel)
      : gamma0(hn::Load(kF32, affines.gamma0 + channel)),
        beta0(hn::Load(kF32, affines.beta0 + channel)),
        gamma1(hn::Load(kF32, affines.gamma1 + channel)),
        beta1(hn::Load(kF32, affines.beta1 + channel)) {}

  HWY_INLINE Vector operator()(Vector v) const {
    return leaky(hn::MulAdd(leaky(hn::MulAdd(v, gamma0, beta0)), gamma1, beta1));
  }
};

struct Place {  // of a tile
  int64_t picture;
  int row, column;  // in tiles
};

HWY_INLINE Place place_of(const Convolution &convolution, int64_t tile) {
  const int columns = convolution.columns().tiles;
  const int64_t of_picture = tile % convolution.tiles();
  return {tile / convolution.tiles(), int(of_picture / columns), int(of_picture % columns)};
}

template <int Tile, bool Doubles>
HWY_NOINLINE void transform_input_tiles(const Convolution &convolution, const float *x, const float *zeros, Tiles tiles,
                                        float *transformed, size_t point_stride) {
  using T = Transform<Tile, Doubles>;
  const int channels = convolution.in_channels();
  const size_t stride = padded(channels), width = convolution.in().width;
  const size_t picture_size = convolution.in().height * width * stride;
  for (int number = 0; number < tiles.count; ++number, transformed += stride) {
    const Place place = place_of(convolution, tiles.first + number);
    const int *rows = convolution.rows().sources.data() + place.row * T::kReads;
    const int *columns = convolution.columns().sources.data() + place.column * T::kReads;
    const float *reads[T::kReads][T::kReads];
    for (int i = 0; i < T::kReads; ++i)
      for (int j = 0; j < T::kReads; ++j)
        reads[i][j] = rows[i] < 0 || columns[j] < 0
                          ? zeros
                          : x + place.picture * picture_size + (rows[i] * width + columns[j]) * stride;
    for (int channel = 0; channel < channels; channel += kLanes) {
      Vector half[T::kSide][T::kReads];
      for (int j = 0; j < T::kReads; ++j) {
        Vector read[T::kReads], point[T::kSide];
        for (int i = 0; i < T::kReads; ++i) read[i] = hn::Load(kF32, reads[i][j] + channel);
        T::input(read, point);
        for (int i = 0; i < T::kSide; ++i) half[i][j] = point[i];
      }
      float *to = transformed + channel;
      for (int i = 0; i < T::kSide; ++i) {
        Vector point[T::kSide];
        T::input(half[i], point);
        for (int j = 0; j < T::kSide; ++j, to += point_stride) hn::Store(point[j], kF32, to);
      }
    }
  }
}

// Adds bias and shortcut to the sums of one picture.
struct AddShortcut {
  Vector bias;
  const float *shortcut;  // of the picture, at the channel
  const Epilogue &epilogue;
  size_t stride;

  HWY_INLINE AddShortcut(const Epilogue &epilogue, int64_t picture, int channel, size_t stride)
      : bias(hn::Load(kF32, epilogue.bias + channel)),
        shortcut(epilogue.shortcut + picture * epilogue.shortcut_size.height * epilogue.shortcut_size.width * stride +
                 channel),
        epilogue(epilogue),
        stride(stride) {}

  HWY_INLINE Vector operator()(Vector v, int row, int column) const {
    const size_t pixel =
        size_t(epilogue.shortcut_rows[row]) * epilogue.shortcut_size.width + epilogue.shortcut_columns[column];
    v = hn::Add(v, hn::Add(bias, hn::Load(kF32, shortcut + pixel * stride)));
    return epilogue.leaky ? leaky(v) : v;
  }
};

struct Activate {
  Coefficients coefficients;

  HWY_INLINE Activate(const Epilogue &epilogue, int64_t picture, int channel, size_t)
      : coefficients(epilogue.affines[picture], channel) {}

  HWY_INLINE Vector operator()(Vector v, int, int) const { return coefficients(v); }
};

template <int Tile, bool Doubles, typename Finish>
HWY_NOINLINE void transform_output_tiles(const Convolution &convolution, const float *products, size_t point_stride,
                                         Tiles tiles, const Epilogue &epilogue, float *y) {
  using T = Transform<Tile, Doubles>;
  const int channels = convolution.out_channels();
  const size_t stride = padded(channels);
  const Size out = convolution.out();
  for (int number = 0; number < tiles.count; ++number, products += stride) {
    const Place place = place_of(convolution, tiles.first + number);
    const int top = place.row * Tile, left = place.column * Tile;
    const int rows = HWY_MIN(Tile, out.height - top), columns = HWY_MIN(Tile, out.width - left);
    float *tile = y + ((place.picture * out.height + top) * out.width + left) * stride;
    for (int channel = 0; channel < channels; channel += kLanes) {
      const Finish finish(epilogue, place.picture, channel, stride);
      Vector half[Tile][T::kSide];
      for (int j = 0; j < T::kSide; ++j) {
        Vector point[T::kSide], sum[Tile];
        for (int i = 0; i < T::kSide; ++i)
          point[i] = hn::Load(kF32, products + channel + (i * T::kSide + j) * point_stride);
        T::output(point, sum);
        for (int i = 0; i < Tile; ++i) half[i][j] = sum[i];
      }
      for (int i = 0; i < rows; ++i) {
        Vector sum[Tile];
        T::output(half[i], sum);
        float *to = tile + i * out.width * stride + channel;
        for (int j = 0; j < columns; ++j) hn::Store(finish(sum[j], top + i, left + j), kF32, to + j * stride);
      }
    }
  }
}

template <int Tile, bool Doubles>
HWY_INLINE void transform_output_of(const Convolution &convolution, const float *products, size_t point_stride,
                                    Tiles tiles, const Epilogue &epilogue, float *y) {
  if (epilogue.affines)
    transform_output_tiles<Tile, Doubles, Activate>(convolution, products, point_stride, tiles, epilogue, y);
  else
    transform_output_tiles<Tile, Doubles, AddShortcut>(convolution, products, point_stride, tiles, epilogue, y);
}

HWY_NOINLINE void transform_input(const Convolution &convolution, const float *x, const float *zeros, Tiles tiles,
                                  float *transformed, size_t point_stride) {
  const auto of_tile = convolution.doubles() ? (convolution.tile() == 2   ? transform_input_tiles<2, true>
                                                : convolution.tile() == 4 ? transform_input_tiles<4, true>
                                                                          : transform_input_tiles<6, true>)
                                             : (convolution.tile() == 2   ? transform_input_tiles<2, false>
                                                : convolution.tile() == 4 ? transform_input_tiles<4, false>
                                                                          : transform_input_tiles<6, false>);
  of_tile(convolution, x, zeros, tiles, transformed, point_stride);
}

HWY_NOINLINE void transform_output(const Convolution &convolution, const float *products, size_t point_stride,
                                   Tiles tiles, const Epilogue &epilogue, float *y) {
  const auto of_tile = convolution.doubles() ? (convolution.tile() == 2   ? transform_output_of<2, true>
                                                : convolution.tile() == 4 ? transform_output_of<4, true>
                                                                          : transform_output_of<6, true>)
                                             : (convolution.tile() == 2   ? transform_output_of<2, false>
                                                : convolution.tile() == 4 ? transform_output_of<4, false>
                                                                          : transform_output_of<6, false>);
  of_tile(convolution, products, point_stride, tiles, epilogue, y);
}

HWY_NOINLINE void activate(float *x, int64_t pixels, int channels, const Affines &affines) {
  const size_t stride = padded(channels);
  for (int channel = 0; channel < channels; channel += kLanes) {
    const Coefficients coefficients(affines, channel);
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      float *at = x + pixel * stride + channel;
      hn::Store(coefficients(hn::Load(kF32, at)), kF32, at);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace galip
HWY_AFTER_NAMESPACE();
