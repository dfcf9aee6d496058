// The image's rows. Included once for each target, after multiply-inl.h.
#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace galip {
namespace HWY_NAMESPACE {

HWY_NOINLINE bool image_row(const float *above, const float *here, const float *below, size_t stride, int width, const float *bias,
               float *image, size_t image_stride, uint8_t *pixels) {
  const hn::CappedTag<float, 4> d4;
  const float *sources[3] = {above, here, below};
  bool finite = true;
  HWY_ALIGN float bias4[4] = {bias[0], bias[1], bias[2], 0.0f};
  for (int column = 0; column < width; ++column) {
    auto sum = hn::Load(d4, bias4);
    for (int i = 0; i < 3; ++i) {
      if (sources[i] == nullptr) continue;
      for (int j = 0; j < 3; ++j) {
        const int source = column - 1 + j;
        if (source < 0 || source >= width) continue;
        sum = hn::Add(sum, hn::LoadU(d4, sources[i] + source * stride + (i * 3 + j) * 3));
      }
    }
    HWY_ALIGN float rgb[4];
    hn::Store(sum, d4, rgb);
    for (int channel = 0; channel < 3; ++channel) {
      const float value = rgb[channel];
      finite = finite && std::isfinite(value);
      if (image) image[channel * image_stride + column] = value;
      if (!pixels) continue;
      const float clamped = value >= 1.0f ? 1.0f : value > -1.0f ? value : -1.0f;
      pixels[column * 3 + channel] = uint8_t(std::nearbyint((clamped + 1.0f) * 127.5f));
    }
  }
  return finite;
}

}  // namespace HWY_NAMESPACE
}  // namespace galip
HWY_AFTER_NAMESPACE();
