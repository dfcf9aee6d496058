// Winograd's transforms of inputs and outputs, B' D B and A' M A. Included once for each target, after
// multiply-inl.h.
HWY_BEFORE_NAMESPACE();
namespace galip {
namespace HWY_NAMESPACE {

HWY_INLINE Vector times(float factor, Vector v) { return hn::Mul(hn::Set(kF32, factor), v); }
HWY_INLINE Vector plus_times(Vector sum, float factor, Vector v) { return hn::MulAdd(hn::Set(kF32, factor), v, sum); }

// B' of F(m, 3) along one axis, and A'. Points are 0, 1, -1, 2, -2, 1/2, -1/2 and infinity, as far as F(m, 3) needs
// them. Behind a doubling, the inputs come without their repetitions, and point -1 is left out.
template <int Tile, bool Doubles>
struct Transform;

template <>
struct Transform<2, false> {
  static constexpr int kReads = 4, kSide = 4;
  static HWY_INLINE void input(const Vector *d, Vector *t) {
    t[0] = hn::Sub(d[0], d[2]);
    t[1] = hn::Add(d[1], d[2]);
    t[2] = hn::Sub(d[2], d[1]);
    t[3] = hn::Sub(d[3], d[1]);
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    y[0] = hn::Add(t[0], hn::Add(t[1], t[2]));
    y[1] = hn::Add(t[3], hn::Sub(t[1], t[2]));
  }
};

template <>
struct Transform<2, true> {
  static constexpr int kReads = 3, kSide = 3;
  static HWY_INLINE void input(const Vector *d, Vector *t) {
    t[0] = hn::Sub(d[0], d[1]);
    t[1] = hn::Add(d[1], d[1]);
    t[2] = hn::Sub(d[2], d[1]);
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    y[0] = hn::Add(t[0], t[1]);
    y[1] = hn::Add(t[1], t[2]);
  }
};

template <>
struct Transform<4, false> {
  static constexpr int kReads = 6, kSide = 6;
  static HWY_INLINE void input(const Vector *d, Vector *t) {
    const Vector even = plus_times(d[4], -4.0f, d[2]), odd = plus_times(d[3], -4.0f, d[1]);
    const Vector even2 = hn::Sub(d[4], d[2]), odd2 = times(2.0f, hn::Sub(d[3], d[1]));
    t[0] = plus_times(plus_times(d[4], -5.0f, d[2]), 4.0f, d[0]);
    t[1] = hn::Add(even, odd);
    t[2] = hn::Sub(even, odd);
    t[3] = hn::Add(even2, odd2);
    t[4] = hn::Sub(even2, odd2);
    t[5] = plus_times(plus_times(d[5], -5.0f, d[3]), 4.0f, d[1]);
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    const Vector sum1 = hn::Add(t[1], t[2]), difference1 = hn::Sub(t[1], t[2]);
    const Vector sum2 = hn::Add(t[3], t[4]), difference2 = hn::Sub(t[3], t[4]);
    y[0] = hn::Add(hn::Add(t[0], sum1), sum2);
    y[1] = plus_times(difference1, 2.0f, difference2);
    y[2] = plus_times(sum1, 4.0f, sum2);
    y[3] = hn::Add(plus_times(difference1, 8.0f, difference2), t[5]);
  }
};

template <>
struct Transform<4, true> {
  static constexpr int kReads = 4, kSide = 5;
  static HWY_INLINE void input(const Vector *d, Vector *t) {  // of d0 d1 d1 d2 d2 d3
    const Vector step = hn::Sub(d[2], d[1]);
    t[0] = plus_times(plus_times(d[2], -5.0f, d[1]), 4.0f, d[0]);
    t[1] = plus_times(times(2.0f, d[2]), -8.0f, d[1]);
    t[2] = times(3.0f, step);
    t[3] = hn::Neg(step);
    t[4] = plus_times(plus_times(d[3], -5.0f, d[2]), 4.0f, d[1]);
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    const Vector sum2 = hn::Add(t[2], t[3]), difference2 = hn::Sub(t[2], t[3]);
    y[0] = hn::Add(hn::Add(t[0], t[1]), sum2);
    y[1] = plus_times(t[1], 2.0f, difference2);
    y[2] = plus_times(t[1], 4.0f, sum2);
    y[3] = hn::Add(plus_times(t[1], 8.0f, difference2), t[4]);
  }
};

template <>
struct Transform<6, false> {
  static constexpr int kReads = 8, kSide = 8;
  static HWY_INLINE void input(const Vector *d, Vector *t) {
    const Vector even1 = plus_times(hn::Add(d[2], d[6]), -4.25f, d[4]);
    const Vector odd1 = plus_times(hn::Add(d[1], d[5]), -4.25f, d[3]);
    const Vector even2 = plus_times(plus_times(d[6], 0.25f, d[2]), -1.25f, d[4]);
    const Vector odd2 = plus_times(plus_times(times(0.5f, d[1]), -2.5f, d[3]), 2.0f, d[5]);
    const Vector even3 = plus_times(plus_times(d[6], 4.0f, d[2]), -5.0f, d[4]);
    const Vector odd3 = plus_times(plus_times(times(2.0f, d[1]), -2.5f, d[3]), 0.5f, d[5]);
    t[0] = plus_times(hn::Sub(d[0], d[6]), 5.25f, hn::Sub(d[4], d[2]));
    t[1] = hn::Add(even1, odd1);
    t[2] = hn::Sub(even1, odd1);
    t[3] = hn::Add(even2, odd2);
    t[4] = hn::Sub(even2, odd2);
    t[5] = hn::Add(even3, odd3);
    t[6] = hn::Sub(even3, odd3);
    t[7] = plus_times(hn::Sub(d[7], d[1]), 5.25f, hn::Sub(d[3], d[5]));
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    const Vector sum1 = hn::Add(t[1], t[2]), difference1 = hn::Sub(t[1], t[2]);
    const Vector sum2 = hn::Add(t[3], t[4]), difference2 = hn::Sub(t[3], t[4]);
    const Vector sum3 = hn::Add(t[5], t[6]), difference3 = hn::Sub(t[5], t[6]);
    y[0] = hn::Add(hn::Add(t[0], sum1), hn::Add(sum2, sum3));
    y[1] = plus_times(plus_times(difference1, 2.0f, difference2), 0.5f, difference3);
    y[2] = plus_times(plus_times(sum1, 4.0f, sum2), 0.25f, sum3);
    y[3] = plus_times(plus_times(difference1, 8.0f, difference2), 0.125f, difference3);
    y[4] = plus_times(plus_times(sum1, 16.0f, sum2), 0.0625f, sum3);
    y[5] = hn::Add(plus_times(plus_times(difference1, 32.0f, difference2), 0.03125f, difference3), t[7]);
  }
};

template <>
struct Transform<6, true> {
  static constexpr int kReads = 5, kSide = 7;
  static HWY_INLINE void input(const Vector *d, Vector *t) {  // of d0 d1 d1 d2 d2 d3 d3 d4
    const Vector even2 = plus_times(plus_times(d[3], 0.25f, d[1]), -1.25f, d[2]);
    const Vector odd2 = plus_times(plus_times(times(0.5f, d[1]), -2.5f, d[2]), 2.0f, d[3]);
    const Vector even3 = plus_times(plus_times(d[3], 4.0f, d[1]), -5.0f, d[2]);
    const Vector odd3 = plus_times(plus_times(times(2.0f, d[1]), -2.5f, d[2]), 0.5f, d[3]);
    t[0] = plus_times(hn::Sub(d[0], d[3]), 5.25f, hn::Sub(d[2], d[1]));
    t[1] = times(2.0f, plus_times(hn::Add(d[1], d[3]), -4.25f, d[2]));
    t[2] = hn::Add(even2, odd2);
    t[3] = hn::Sub(even2, odd2);
    t[4] = hn::Add(even3, odd3);
    t[5] = hn::Sub(even3, odd3);
    t[6] = plus_times(hn::Sub(d[4], d[1]), 5.25f, hn::Sub(d[2], d[3]));
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    const Vector sum2 = hn::Add(t[2], t[3]), difference2 = hn::Sub(t[2], t[3]);
    const Vector sum3 = hn::Add(t[4], t[5]), difference3 = hn::Sub(t[4], t[5]);
    y[0] = hn::Add(hn::Add(t[0], t[1]), hn::Add(sum2, sum3));
    y[1] = plus_times(plus_times(t[1], 2.0f, difference2), 0.5f, difference3);
    y[2] = plus_times(plus_times(t[1], 4.0f, sum2), 0.25f, sum3);
    y[3] = plus_times(plus_times(t[1], 8.0f, difference2), 0.125f, difference3);
    y[4] = plus_times(plus_times(t[1], 16.0f, sum2), 0.0625f, sum3);
    y[5] = hn::Add(plus_times(plus_times(t[1], 32.0f, difference2), 0.03125f, difference3), t[6]);
  }
};

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
