// Aligned arrays of float32 and sizes.
#ifndef GALIP_MEMORY_H_
#define GALIP_MEMORY_H_

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace galip {

// Channels of one pixel take a multiple of this many floats: a cache line, and the widest vector.
constexpr int kChannelUnit = 16;

constexpr size_t kAlignment = 64;

template <typename T>
constexpr T ceil_div(T value, T unit) {
  return (value + unit - 1) / unit;
}

template <typename T>
constexpr T round_up(T value, T unit) {
  return ceil_div(value, unit) * unit;
}

// Floats that the channels of one pixel take.
constexpr int padded(int channels) { return round_up(channels, kChannelUnit); }

// An aligned array that starts as zeros. It throws std::bad_alloc where memory is short.
class Floats {
 public:
  Floats() = default;
  explicit Floats(size_t size) { reserve(size); }
  Floats(Floats &&other) noexcept { swap(other); }
  Floats &operator=(Floats &&other) noexcept {
    swap(other);
    return *this;
  }
  ~Floats() { free_aligned(data_); }

  // Make room for `size` floats. What was there is lost if the array grows.
  void reserve(size_t size) {
    if (size <= size_) return;
    free_aligned(data_);
    data_ = nullptr;
    size_ = 0;
    data_ = static_cast<float *>(allocate_aligned(round_up(size * sizeof(float), kAlignment)));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, 0, size * sizeof(float));
    size_ = size;
  }

  float *data() { return data_; }
  const float *data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(float); }

 private:
  void swap(Floats &other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

#if defined(_WIN32)
  static void *allocate_aligned(size_t bytes) { return _aligned_malloc(bytes, kAlignment); }
  static void free_aligned(void *data) { _aligned_free(data); }
#else
  static void *allocate_aligned(size_t bytes) {
    void *data = nullptr;
    return posix_memalign(&data, kAlignment, bytes) == 0 ? data : nullptr;
  }
  static void free_aligned(void *data) { std::free(data); }
#endif

  float *data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace galip

#endif  // GALIP_MEMORY_H_
