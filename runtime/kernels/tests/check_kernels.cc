// Compares the library with the reference on blocks of random shapes: check_kernels [SECONDS [SEED]].
//
// Meant to be built with sanitizers, or for another CPU. Every case checks the picture, that a batch and its
// pictures alone are equal bit for bit, on other numbers of threads, too, and that the pixels are those of the picture.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "reference.h"

namespace {

constexpr double kTolerance = 5e-5;  // of the picture's largest magnitude: Winograd's rounding in float32

void require(bool condition, const std::string &what) {
  if (!condition) throw std::runtime_error(what);
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  int between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  bool chance(int percent) { return between(1, 100) <= percent; }

  std::vector<float> normal(size_t count, float mean, float deviation) {
    std::normal_distribution<float> distribution(mean, deviation);
    std::vector<float> values(count);
    for (float &value : values) value = distribution(engine_);
    return values;
  }

 private:
  std::mt19937_64 engine_;
};

// Blocks with random weights, and what they take for `pictures` pictures. The vectors own what the pointers point to.
struct Case {
  std::vector<std::vector<float>> storage;
  std::vector<galip_block> blocks;
  std::vector<const float *> affines;
  const float *image_weight = nullptr, *image_bias = nullptr, *features = nullptr;
  int pictures = 1;
  std::string description;

  const float *store(std::vector<float> values) {
    storage.push_back(std::move(values));
    return storage.back().data();
  }

  const float *weight(Random &random, int out, int in, int taps) {
    return store(random.normal(size_t(out) * in * taps, 0, 1 / std::sqrt(float(in) * taps)));
  }

  void add_affines(Random &random, int channels) {
    for (int i = 0; i < 4; ++i) {
      affines.push_back(store(random.normal(size_t(pictures) * channels, i % 2 ? 0.0f : 1.0f, 0.3f)));
    }
  }

  size_t pixels() const { return size_t(blocks.back().out_height) * blocks.back().out_width; }
};

int grown(Random &random, int size) {
  switch (random.between(0, 4)) {
    case 0:
      return size;
    case 1:
    case 2:
      return 2 * size;
    case 3:
      return size + 1;
    default:
      return random.between(size, 3 * size);
  }
}

Case random_case(Random &random) {
  Case c;
  c.pictures = random.between(1, 3);
  int height = random.between(1, 12), width = random.between(1, 12);
  int channels = random.between(1, 40);
  const int first = channels;
  c.features = c.store(random.normal(size_t(c.pictures) * channels * height * width, 0, 1));
  c.description = std::to_string(c.pictures) + " pictures, " + std::to_string(channels) + " channels, " +
                  std::to_string(height) + "x" + std::to_string(width);
  const int count = random.between(1, 3);
  for (int i = 0; i < count; ++i) {
    galip_block b{};
    b.in_channels = channels;
    b.in_height = height;
    b.in_width = width;
    b.out_channels = random.chance(30) ? channels : random.between(1, first + 4);
    b.out_height = grown(random, height);
    b.out_width = grown(random, width);
    b.conv1_weight = c.weight(random, b.out_channels, channels, 9);
    b.conv1_bias = c.store(random.normal(b.out_channels, 0, 0.1f));
    b.conv2_weight = c.weight(random, b.out_channels, b.out_channels, 9);
    b.conv2_bias = c.store(random.normal(b.out_channels, 0, 0.1f));
    if (b.out_channels != channels || random.chance(20)) {
      b.shortcut_weight = c.weight(random, b.out_channels, channels, 1);
      b.shortcut_bias = c.store(random.normal(b.out_channels, 0, 0.1f));
    }
    c.add_affines(random, channels);
    c.add_affines(random, b.out_channels);
    c.blocks.push_back(b);
    channels = b.out_channels, height = b.out_height, width = b.out_width;
    c.description += " -> " + std::to_string(channels) + ", " + std::to_string(height) + "x" + std::to_string(width);
  }
  c.image_weight = c.weight(random, 3, channels, 9);
  c.image_bias = c.store(random.normal(3, 0, 0.1f));
  return c;
}

struct Pictures {
  std::vector<float> image;
  std::vector<uint8_t> pixels;
};

using Handle = std::unique_ptr<galip_blocks, decltype(&galip_blocks_close)>;

Handle opened(const Case &c, int threads) {
  char error[200] = "";
  Handle handle(galip_blocks_open(c.blocks.data(), int(c.blocks.size()), c.image_weight, c.image_bias, threads, error,
                                  sizeof error),
                &galip_blocks_close);
  require(handle != nullptr, std::string("open: ") + error);
  return handle;
}

// Picture `index` alone, or with -1 all of them.
Pictures pictures_of(const Case &c, galip_blocks *handle, int index) {
  const galip_block &first = c.blocks.front();
  const int64_t size = int64_t(first.in_channels) * first.in_height * first.in_width, from = std::max(index, 0);
  std::vector<const float *> affines;
  for (size_t i = 0; i < c.affines.size(); ++i) {
    const galip_block &block = c.blocks[i / 8];
    affines.push_back(c.affines[i] + from * (i % 8 < 4 ? block.in_channels : block.out_channels));
  }
  const int count = index < 0 ? c.pictures : 1;
  Pictures result{std::vector<float>(count * c.pixels() * 3), std::vector<uint8_t>(count * c.pixels() * 3)};
  const int32_t status = galip_blocks_run(handle, count, c.features + from * size, affines.data(), result.image.data(),
                                          result.pixels.data());
  require(status == GALIP_OK, "run: " + std::to_string(status));
  return result;
}

void check_pixels(const Pictures &pictures, size_t area) {
  for (size_t i = 0; i < pictures.image.size(); ++i) {
    const size_t picture = i / (3 * area), channel = i / area % 3, place = i % area;
    require(pictures.pixels[(picture * area + place) * 3 + channel] == reference::pixel_of(pictures.image[i]),
            "a pixel is not that of the picture");
  }
}

double check_against_reference(const Case &c, const Pictures &all) {
  double largest = 0, difference = 0;
  for (int n = 0; n < c.pictures; ++n) {
    const std::vector<float> expected = reference::image_of(c.blocks.data(), int(c.blocks.size()), c.image_weight,
                                                            c.image_bias, c.features, c.affines.data(), n);
    for (size_t i = 0; i < expected.size(); ++i) {
      largest = std::max(largest, std::fabs(double(expected[i])));
      difference = std::max(difference, std::fabs(double(expected[i]) - all.image[n * expected.size() + i]));
    }
  }
  require(difference <= kTolerance * largest, "the picture is off by " + std::to_string(difference / largest));
  return difference / largest;
}

double check(const Case &c, int threads) {
  const Handle handle = opened(c, threads), other = opened(c, threads % 3 + 1);
  require(galip_blocks_memory(handle.get()) > 0, "it says that it takes no memory");
  const Pictures all = pictures_of(c, handle.get(), -1);
  check_pixels(all, c.pixels());
  const Pictures again = pictures_of(c, other.get(), -1);
  require(!std::memcmp(all.image.data(), again.image.data(), all.image.size() * sizeof(float)),
          "other threads, another picture");
  for (int n = 0; n < c.pictures; ++n) {
    const Pictures alone = pictures_of(c, other.get(), n);
    require(
        !std::memcmp(alone.image.data(), all.image.data() + n * alone.image.size(), alone.image.size() * sizeof(float)),
        "picture " + std::to_string(n) + " is another one alone");
  }
  return check_against_reference(c, all);
}

}  // namespace

int main(int argc, char **argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
  const uint64_t first_seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  const auto begin = std::chrono::steady_clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  double worst = 0;
  uint64_t seed = first_seed;
  for (; seed == first_seed || passed() < seconds; ++seed) {
    Random random(seed);
    const int threads = random.between(1, 3);
    const Case c = random_case(random);
    std::printf("seed %llu, %d threads: %s\n", static_cast<unsigned long long>(seed), threads, c.description.c_str());
    std::fflush(stdout);  // a sanitizer may end the process
    try {
      worst = std::max(worst, check(c, threads));
    } catch (const std::runtime_error &error) {
      std::fprintf(stderr, "%s\n", error.what());
      return 1;
    }
  }
  std::printf("%s: %llu cases, at most %.1e off\n", galip_kernels_target(),
              static_cast<unsigned long long>(seed - first_seed), worst);
  return 0;
}
