#include "galip_kernels.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>

#include "arithmetic.h"
#include "generator.h"

struct galip_blocks {
  galip::Generator generator;
};

namespace {

void write_error(const char *text, char *error, size_t size) {
  if (!error || !size) return;
  const size_t length = std::min(std::strlen(text), size - 1);
  std::memcpy(error, text, length);
  error[length] = '\0';
}

}  // namespace

int32_t galip_kernels_abi(void) { return GALIP_KERNELS_ABI; }

const char *galip_kernels_target(void) {
  const galip::Arithmetic *arithmetic = galip::arithmetic();
  return arithmetic ? arithmetic->name : "none";
}

galip_blocks *galip_blocks_open(const galip_block *blocks, int32_t count, const float *image_weight,
                                const float *image_bias, int32_t threads, char *error, size_t error_size) {
  try {
    return new galip_blocks{{blocks, count, image_weight, image_bias, threads}};
  } catch (const std::bad_alloc &) {
    write_error("not enough memory", error, error_size);
  } catch (const std::exception &exception) {
    write_error(exception.what(), error, error_size);
  }
  return nullptr;
}

int32_t galip_blocks_run(galip_blocks *blocks, int64_t pictures, const float *features, const float *const *affines,
                         float *image, uint8_t *pixels) {
  try {
    return blocks->generator.run(pictures, features, affines, image, pixels) ? GALIP_OK : GALIP_NOT_FINITE;
  } catch (const std::bad_alloc &) {
    return GALIP_NO_MEMORY;
  }
}

int64_t galip_blocks_memory(const galip_blocks *blocks) { return int64_t(blocks->generator.bytes()); }

const char *galip_blocks_algorithms(const galip_blocks *blocks) { return blocks->generator.algorithms(); }

void galip_blocks_close(galip_blocks *blocks) { delete blocks; }
