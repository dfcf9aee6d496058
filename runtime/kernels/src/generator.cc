#include "generator.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

namespace galip {
namespace {

constexpr int64_t kPicturesTogether = 4;
constexpr int kLargestTogether = 32 * 32;  // pixels: weights, not feature maps, are most of what such blocks read
constexpr int kImageRows = 16;             // of a task
constexpr int kImageStride = 32;           // floats of a pixel's products: kImageColumns and some more

void check(bool holds, int block, const char *rule) {
  if (!holds) throw std::invalid_argument("block " + std::to_string(block) + ": " + rule);
}

void check_block(const galip_block *blocks, int number) {
  const galip_block &block = blocks[number];
  constexpr int kMost = 1 << 14;
  const auto in_range = [](int value) { return value > 0 && value <= kMost; };
  check(in_range(block.in_channels) && in_range(block.out_channels), number, "channels must be from 1 to 16384");
  check(
      in_range(block.in_height) && in_range(block.in_width) && in_range(block.out_height) && in_range(block.out_width),
      number, "sizes must be from 1 to 16384");
  check(block.out_height >= block.in_height && block.out_width >= block.in_width, number,
        "the output must be at least as large as the input");
  check(block.conv1_weight && block.conv1_bias && block.conv2_weight && block.conv2_bias, number,
        "the weights and biases of both convolutions are needed");
  check(!block.shortcut_weight == !block.shortcut_bias, number, "a shortcut needs both its weight and its bias");
  check(block.shortcut_weight || block.in_channels == block.out_channels, number,
        "a change of channels needs a shortcut");
  if (number == 0) return;
  const galip_block &before = blocks[number - 1];
  check(block.in_channels == before.out_channels && block.in_height == before.out_height &&
            block.in_width == before.out_width,
        number, "its input is not the output of the block before");
}

int check_threads(int threads) {
  if (threads < 1 || threads > 1024) throw std::invalid_argument("threads must be from 1 to 1024");
  return threads;
}

int most_channels(const galip_block *blocks, int count) {
  if (!blocks || count < 1) throw std::invalid_argument("there must be at least one block");
  int most = 0;
  for (int number = 0; number < count; ++number) {
    check_block(blocks, number);
    most = std::max({most, blocks[number].in_channels, blocks[number].out_channels});
  }
  return most;
}

}  // namespace

Generator::Generator(const galip_block *blocks, int count, const float *image_weight, const float *image_bias,
                     int threads)
    : pool_(check_threads(threads)), workspace_(pool_, most_channels(blocks, count)) {
  if (!image_weight || !image_bias) throw std::invalid_argument("the image's weight and bias are needed");
  const Arithmetic *arithmetic = galip::arithmetic();
  if (!arithmetic) throw std::invalid_argument("this CPU has none of the instructions that the library uses");
  blocks_.reserve(count);
  for (int number = 0; number < count; ++number) {
    blocks_.emplace_back(blocks[number], pool_);
    const GenerationBlock &block = blocks_.back();
    if (together_ == number && block.out().height * block.out().width <= kLargestTogether) together_ = number + 1;
    const std::string name = "blocks." + std::to_string(number);
    algorithms_ +=
        name + ".conv1 " + block.conv1().algorithm() + "\n" + name + ".conv2 " + block.conv2().algorithm() + "\n";
  }
  const int channels = blocks_.back().out_channels();
  image_weight_.reserve(arithmetic->packed_size(channels, kImageColumns));
  for (int color = 0; color < 3; ++color)
    for (int channel = 0; channel < channels; ++channel)
      for (int tap = 0; tap < 9; ++tap)
        image_weight_.data()[arithmetic->packed_index(channels, kImageColumns, channel, tap * 3 + color)] =
            image_weight[(color * channels + channel) * 9 + tap];
  image_bias_.reserve(4);
  std::copy_n(image_bias, 3, image_bias_.data());
}

size_t Generator::bytes() const {
  size_t sum =
      image_weight_.bytes() + workspace_.bytes() + hidden_.bytes() + shortcut_.bytes() + image_products_.bytes();
  for (const Floats &map : maps_) sum += map.bytes();
  for (const Floats &map : maps_together_) sum += map.bytes();
  for (const GenerationBlock &block : blocks_) sum += block.bytes();
  return sum;
}

bool Generator::run(int64_t pictures, const float *features, const float *const *affines, float *image,
                    uint8_t *pixels) {
  const Size out = blocks_.back().out();
  const size_t image_floats = size_t(3) * out.height * out.width;
  bool finite = true;
  for (int64_t first = 0; first < pictures; first += kPicturesTogether) {
    const int64_t count = std::min(kPicturesTogether, pictures - first);
    reserve(count);
    read_affines(affines, first, count);
    float *maps = read_features(features, first, count);
    for (int number = 0; number < together_; ++number) maps = run_block(number, 0, count, maps, maps_together_);
    for (int64_t picture = 0; picture < count; ++picture) {
      float *map = maps + picture * blocks_[0].in_floats();
      if (together_) map = maps + picture * blocks_[together_ - 1].out_floats();
      for (int number = together_; number < int(blocks_.size()); ++number)
        map = run_block(number, picture, 1, map, maps_);
      const int64_t index = first + picture;
      if (!write_image(map, image ? image + index * image_floats : nullptr,
                       pixels ? pixels + index * image_floats : nullptr))
        finite = false;
    }
  }
  return finite;
}

void Generator::reserve(int64_t pictures) {
  maps_together_[0].reserve(pictures * blocks_[0].in_floats());
  for (int number = 0; number < int(blocks_.size()); ++number) {
    const GenerationBlock &block = blocks_[number];
    const int64_t count = number < together_ ? pictures : 1;
    Floats *maps = number < together_ ? maps_together_ : maps_;
    maps[(number + 1) % 2].reserve(count * block.out_floats());
    hidden_.reserve(count * block.out_floats());
    shortcut_.reserve(count * block.shortcut_floats());
  }
  image_products_.reserve(size_t(pool_.threads()) * (kImageRows + 2) * blocks_.back().out().width * kImageStride);
}

void Generator::read_affines(const float *const *affines, int64_t first, int64_t pictures) {
  for (GenerationBlock &block : blocks_) {
    block.read_affines(affines, first, pictures);
    affines += 8;
  }
}

float *Generator::read_features(const float *features, int64_t first, int64_t pictures) {
  const GenerationBlock &block = blocks_[0];
  const int64_t channels = block.in_channels(), pixels = int64_t{block.in().height} * block.in().width;
  for (int64_t picture = 0; picture < pictures; ++picture) {
    const float *from = features + (first + picture) * channels * pixels;
    float *to = maps_together_[0].data() + picture * block.in_floats();
    for (int64_t pixel = 0; pixel < pixels; ++pixel)
      for (int64_t channel = 0; channel < channels; ++channel)
        to[pixel * padded(block.in_channels()) + channel] = from[channel * pixels + pixel];
  }
  return maps_together_[0].data();
}

float *Generator::run_block(int number, int64_t first, int64_t pictures, float *x, Floats (&maps)[2]) {
  float *y = maps[(number + 1) % 2].data();
  const bool is_last = number + 1 == int(blocks_.size());
  blocks_[number].run(first, pictures, x, shortcut_.data(), hidden_.data(), y, is_last, workspace_);
  return y;
}

// Multiply each pixel with all taps at once, and add what belongs to each pixel of the image.
bool Generator::write_image(const float *y, float *image, uint8_t *pixels) {
  const Arithmetic &arithmetic = *galip::arithmetic();
  const Size size = blocks_.back().out();
  const int channels = blocks_.back().out_channels();
  const size_t row_floats = size_t(size.width) * padded(channels), row_products = size_t(size.width) * kImageStride;
  std::atomic<bool> finite{true};
  pool_.run(ceil_div(size.height, kImageRows), [&](int64_t index, int thread) {
    float *products = image_products_.data() + thread * (kImageRows + 2) * row_products;
    const int begin = int(index) * kImageRows, end = std::min(begin + kImageRows, size.height);
    const int top = std::max(begin - 1, 0), bottom = std::min(end + 1, size.height);
    arithmetic.multiply(y + top * row_floats, padded(channels), int64_t{bottom - top} * size.width,
                        image_weight_.data(), channels, kImageColumns, products, kImageStride, 0,
                        arithmetic.panels(kImageColumns));
    const auto row_of = [&](int row) {
      return row < top || row >= bottom ? nullptr : products + (row - top) * row_products;
    };
    for (int row = begin; row < end; ++row) {
      const bool is_finite = arithmetic.image_row(
          row_of(row - 1), row_of(row), row_of(row + 1), kImageStride, size.width, image_bias_.data(),
          image ? image + size_t(row) * size.width : nullptr, size_t(size.height) * size.width,
          pixels ? pixels + size_t(row) * size.width * 3 : nullptr);
      if (!is_finite) finite.store(false);
    }
  });
  return finite.load();
}

}  // namespace galip
