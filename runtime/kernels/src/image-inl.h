// The image's rows. Included once for each target, after multiply-inl.h.
HWY_BEFORE_NAMESPACE();
namespace galip {
namespace HWY_NAMESPACE {

// Red, green, blue and something else.
using Rgb = hn::FixedTag<float, 4>;

// The sum of what a pixel's neighbours, and the pixel itself, have for it. `rows`: products of the rows above, here
// and below; NULL beyond the edge.
template <bool IsEdge>
HWY_INLINE hn::Vec<Rgb> pixel_of(const float *const *rows, size_t stride, int column, int width, hn::Vec<Rgb> bias) {
  auto sum = bias;
  for (int i = 0; i < 3; ++i) {
    if (rows[i] == nullptr) continue;
    for (int j = 0; j < 3; ++j) {
      const int source = column - 1 + j;
      if (IsEdge && (source < 0 || source >= width)) continue;
      sum = hn::Add(sum, hn::LoadU(Rgb(), rows[i] + source * stride + (i * 3 + j) * 3));
    }
  }
  return sum;
}

HWY_NOINLINE bool image_row(const float *above, const float *here, const float *below, size_t stride, int width,
                            const float *bias, float *image, size_t image_stride, uint8_t *pixels) {
  const Rgb rgb;
  const hn::RebindToSigned<Rgb> integers;
  const float *rows[3] = {above, here, below};
  const auto one = hn::Set(rgb, 1.0f), bias4 = hn::LoadU(rgb, bias);
  auto zeros = hn::Zero(rgb);  // until something is not finite
  for (int column = 0; column < width; ++column) {
    const bool is_edge = column == 0 || column == width - 1;
    const auto sum = is_edge ? pixel_of<true>(rows, stride, column, width, bias4)
                             : pixel_of<false>(rows, stride, column, width, bias4);
    zeros = hn::MulAdd(sum, hn::Zero(rgb), zeros);
    if (image) {
      HWY_ALIGN float values[4];
      hn::Store(sum, rgb, values);
      for (int channel = 0; channel < 3; ++channel) image[channel * image_stride + column] = values[channel];
    }
    if (pixels) {
      const auto clamped = hn::Clamp(sum, hn::Neg(one), one);
      HWY_ALIGN int32_t values[4];
      hn::Store(hn::NearestInt(hn::Mul(hn::Add(clamped, one), hn::Set(rgb, 127.5f))), integers, values);
      for (int channel = 0; channel < 3; ++channel) pixels[column * 3 + channel] = uint8_t(values[channel]);
    }
  }
  HWY_ALIGN float values[4];
  hn::Store(zeros, rgb, values);
  return values[0] == 0.0f && values[1] == 0.0f && values[2] == 0.0f;
}

}  // namespace HWY_NAMESPACE
}  // namespace galip
HWY_AFTER_NAMESPACE();
