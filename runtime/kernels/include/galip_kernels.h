/* galip-kernels: GALIP's generation blocks on a CPU, in float32, by Winograd convolutions.
 *
 * A generation block maps x (Ci, H, W) to y (Co, H', W'):
 *
 *     h = conv1(up(df1(x))) + bias1                    3x3, padding 1
 *     y = shortcut(up(x)) + conv2(df2(h)) + bias2      3x3, padding 1
 *
 * where up is nearest upsampling as PyTorch has it: row i of the result is row floor(i * H / H'), columns alike;
 * df is `leaky(g1 * leaky(g0 * x + b0) + b1)`, leaky(v) = max(v, 0.2 v), with g and b of each picture and channel;
 * shortcut is a 1x1 convolution with a bias, or the identity. After the last block comes
 * `image = conv3x3(leaky(y)) + bias`, three channels. All arrays are contiguous float32 in the order given.
 *
 * Each picture is bit for bit the same whatever else is in its batch and however many threads compute it.
 */
#ifndef GALIP_KERNELS_H_
#define GALIP_KERNELS_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define GALIP_KERNELS_API __declspec(dllexport)
#else
#define GALIP_KERNELS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes when a caller that was built for another one can no longer call the library. */
#define GALIP_KERNELS_ABI 1

typedef struct {
  int32_t in_channels, out_channels;
  int32_t in_height, in_width;   /* H, W */
  int32_t out_height, out_width; /* H', W': at least H and W */
  const float *conv1_weight;     /* (Co, Ci, 3, 3) */
  const float *conv1_bias;       /* (Co) */
  const float *conv2_weight;     /* (Co, Co, 3, 3) */
  const float *conv2_bias;       /* (Co) */
  const float *shortcut_weight;  /* (Co, Ci); NULL for the identity, where Ci is Co */
  const float *shortcut_bias;    /* (Co); NULL with the identity */
} galip_block;

typedef struct galip_blocks galip_blocks;

/* GALIP_KERNELS_ABI of the library. */
GALIP_KERNELS_API int32_t galip_kernels_abi(void);

/* The instructions that this process uses: "AVX-512", "AVX2", "NEON", ...; "none" where the CPU has none of those
 * that the library was built for, and nothing can be opened. The environment variable
 * GALIP_KERNELS_TARGET asks for one of them; one that the CPU lacks, or that the library was built without, is
 * ignored. It is read once. */
GALIP_KERNELS_API const char *galip_kernels_target(void);

/* Copy and transform the weights of `count` blocks, and start `threads` - 1 threads. `image_weight` is
 * (3, Co of the last block, 3, 3), `image_bias` (3). Returns NULL on failure, and writes why to `error`, at most
 * `error_size` bytes with the final zero. The arrays may be freed afterwards. */
GALIP_KERNELS_API galip_blocks *galip_blocks_open(const galip_block *blocks, int32_t count, const float *image_weight,
                                                  const float *image_bias, int32_t threads, char *error,
                                                  size_t error_size);

/* What `galip_blocks_run` returns. */
enum { GALIP_OK = 0, GALIP_NOT_FINITE = 1, GALIP_NO_MEMORY = 2 };

/* Compute `pictures` pictures. `features`: (N, Ci, H, W) of the first block. `affines`: 8 pointers a block, to
 * (N, C) each: g0, b0, g1, b1 of df1 (C = Ci), then of df2 (C = Co). `image`: (N, 3, H', W') of the last block,
 * float32, not clamped; or NULL. `pixels`: (N, H', W', 3) uint8, of which [-1, 1] becomes 0 ... 255, clamped and
 * rounded to nearest even; or NULL. Returns GALIP_NOT_FINITE where an element of a picture is not finite: `image`
 * is complete then, and `pixels` undefined. One call at a time for each `galip_blocks`. */
GALIP_KERNELS_API int32_t galip_blocks_run(galip_blocks *blocks, int64_t pictures, const float *features,
                                           const float *const *affines, float *image, uint8_t *pixels);

/* Bytes of the transformed weights and of the working memory so far. */
GALIP_KERNELS_API int64_t galip_blocks_memory(const galip_blocks *blocks);

/* A line for each convolution, with its algorithm, ended by a zero: "blocks.0.conv1 F(4x4,3x3)\n..." */
GALIP_KERNELS_API const char *galip_blocks_algorithms(const galip_blocks *blocks);

/* End the threads and free the memory; NULL is allowed. */
GALIP_KERNELS_API void galip_blocks_close(galip_blocks *blocks);

#ifdef __cplusplus
}
#endif

#endif /* GALIP_KERNELS_H_ */
