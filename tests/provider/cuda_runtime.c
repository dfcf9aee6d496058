/* A CUDA runtime without a GPU: memory is the host's, kernels do nothing, captured graphs are empty.

   What onnxruntime's CUDA provider asks of it is written to the file that GALIP_CUDA_LOG names, a line a call.
   Memory is neither made nor given up, nothing is copied at once and nothing waited for while a stream is captured:
   a real one refuses that, too. */

#include <cuda_runtime_api.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int capturing, kernels, captured;

static void told(const char *format, ...) {
    static FILE *file;
    if (!file) file = getenv("GALIP_CUDA_LOG") ? fopen(getenv("GALIP_CUDA_LOG"), "a") : stderr;
    va_list values;
    va_start(values, format);
    if (capturing) fputs("captured ", file);
    vfprintf(file, format, values);
    fputc('\n', file);
    fflush(file);
    va_end(values);
}

static void *made(size_t size) { return aligned_alloc(256, (size + 511) / 256 * 256); }

/* the device */

cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device ? cudaErrorInvalidDevice : cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = 13000; return cudaSuccess; }
const char *cudaGetErrorName(cudaError_t error) { return error ? "cudaError" : "cudaSuccess"; }
const char *cudaGetErrorString(cudaError_t error) { return error ? "refused by the stub" : "no error"; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
    memset(found, 0, sizeof *found);
    strcpy(found->name, "a stub of a GPU");
    found->major = 9;
    found->totalGlobalMem = 80UL << 30;
    found->multiProcessorCount = 132;
    found->warpSize = 32;
    found->maxThreadsPerBlock = found->maxThreadsDim[0] = found->maxThreadsDim[1] = 1024;
    found->maxThreadsDim[2] = 64;
    found->maxThreadsPerMultiProcessor = 2048;
    found->maxGridSize[0] = 2147483647;
    found->maxGridSize[1] = found->maxGridSize[2] = 65535;
    found->regsPerBlock = 65536;
    found->sharedMemPerBlock = 49152;
    found->sharedMemPerBlockOptin = 232448;
    found->sharedMemPerMultiprocessor = 233472;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
        case cudaDevAttrMultiProcessorCount: *value = 132; break;
        case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
        default: *value = 1;
    }
    return cudaSuccess;
}

/* memory */

cudaError_t cudaMalloc(void **address, size_t size) {
    told("cudaMalloc %zu", size);
    if (capturing) return cudaErrorStreamCaptureUnsupported;
    *address = made(size);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **address, size_t size) {
    told("cudaMallocHost %zu", size);
    if (capturing) return cudaErrorStreamCaptureUnsupported;
    *address = made(size);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **address, size_t size, unsigned flags) { return cudaMallocHost(address, size); }
cudaError_t cudaFree(void *address) {
    told("cudaFree");
    if (capturing) return cudaErrorStreamCaptureUnsupported;
    free(address);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *address) {
    told("cudaFreeHost");
    if (capturing) return cudaErrorStreamCaptureUnsupported;
    free(address);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) { *free = 70UL << 30; *total = 80UL << 30; return cudaSuccess; }

cudaError_t cudaMemcpy(void *target, const void *source, size_t size, enum cudaMemcpyKind kind) {
    told("cudaMemcpy %zu %d", size, kind);
    if (capturing) return cudaErrorStreamCaptureUnsupported;
    memcpy(target, source, size);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *target, const void *source, size_t size, enum cudaMemcpyKind kind, cudaStream_t on) {
    told("cudaMemcpyAsync %zu %d", size, kind);
    memcpy(target, source, size);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *target, int value, size_t size) {
    told("cudaMemset %zu", size);
    if (capturing) return cudaErrorStreamCaptureUnsupported;
    memset(target, value, size);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *target, int value, size_t size, cudaStream_t on) {
    memset(target, value, size);
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *address) {
    memset(found, 0, sizeof *found);
    found->type = cudaMemoryTypeDevice;
    found->devicePointer = (void *)address;
    return cudaSuccess;
}

/* streams, events, graphs */

cudaError_t cudaStreamCreate(cudaStream_t *stream) { *stream = made(1); return cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return cudaStreamCreate(stream); }

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    told("cudaStreamSynchronize");
    return capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) {
    told("cudaDeviceSynchronize");
    return capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) { *event = made(1); return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { return cudaEventCreate(event); }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    *milliseconds = 1;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    told("cudaStreamBeginCapture");
    capturing = 1;
    captured = kernels;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    capturing = 0;
    told("cudaStreamEndCapture %d", kernels - captured);
    *graph = made(1);
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *launch, cudaGraph_t graph, unsigned long long flags) {
    *launch = made(1);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t launch, cudaStream_t stream) {
    told("cudaGraphLaunch");
    return cudaSuccess;
}

/* kernels */

cudaError_t cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **values, size_t shared, cudaStream_t on) {
    kernels++;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3 grid, dim3 block, void **values, size_t shared, cudaStream_t on) {
    kernels++;
    return cudaSuccess;
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *f, void **values) {
    kernels++;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *f) {
    memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = 1024;
    found->numRegs = 32;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *f, int threads, size_t shared, unsigned flags) {
    *blocks = 4;
    return cudaSuccess;
}

static int nothing(void) { return 0; }

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    *function = (void *)nothing;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *f) { *kernel = (cudaKernel_t)f; return cudaSuccess; }
void **__cudaRegisterFatBinary(void *binary) { static void *handle; return &handle; }
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) { return 0; }

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    grid->x = grid->y = grid->z = block->x = block->y = block->z = 1;
    *shared = 0;
    *(void **)stream = 0;
    return cudaSuccess;
}
