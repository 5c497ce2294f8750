// A CUDA runtime that sees one H100 and runs nothing, for fake tensors: preloaded over torch's libcudart. It answers
// what torch asks; memory, streams and events are handles that nobody looks into. What is not here is the real library's,
// which fails for want of a driver: a kernel that is launched is an error.
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#undef cudaGetDeviceProperties
#define OK return cudaSuccess
#define DONE(name, ...) \
  cudaError_t name(__VA_ARGS__) { OK; }

static const size_t MEMORY = 85899345920ull;  // 80 GiB
static const int DRIVER = 12080;

// The device.
cudaError_t cudaGetDeviceCount(int *count) { *count = 1; OK; }
cudaError_t cudaGetDevice(int *device) { *device = 0; OK; }
cudaError_t cudaDriverGetVersion(int *version) { *version = DRIVER; OK; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = DRIVER; OK; }
cudaError_t cudaDeviceGetPCIBusId(char *id, int size, int device) { strncpy(id, "0000:00:00.0", size); OK; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; OK; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; OK; }
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = MEMORY; OK; }
DONE(cudaSetDevice, int device)
DONE(cudaInitDevice, int device, unsigned device_flags, unsigned flags)
DONE(cudaDeviceSynchronize, void)
DONE(cudaGetLastError, void)
DONE(cudaPeekAtLastError, void)

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    default: *value = 1;
  }
  OK;
}

cudaError_t cudaGetDeviceProperties_v2(struct cudaDeviceProp *p, int device) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "NVIDIA H100 80GB HBM3");
  p->major = 9;
  p->multiProcessorCount = 132;
  p->totalGlobalMem = MEMORY;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->sharedMemPerBlock = 49152;
  p->sharedMemPerBlockOptin = 232448;
  p->sharedMemPerMultiprocessor = 233472;
  p->regsPerMultiprocessor = 65536;
  p->l2CacheSize = 52428800;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  OK;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) { return cudaGetDeviceProperties_v2(p, device); }

// Memory. A pointer on the device is never read; page-locked memory of the host is memory.
cudaError_t cudaMalloc(void **pointer, size_t size) { *pointer = malloc(16); OK; }
cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) { *pointer = malloc(size); OK; }
cudaError_t cudaFreeHost(void *pointer) { free(pointer); OK; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
  memset(attributes, 0, sizeof *attributes);
  attributes->type = cudaMemoryTypeUnregistered;
  OK;
}
DONE(cudaFree, void *pointer)
DONE(cudaHostRegister, void *pointer, size_t size, unsigned flags)
DONE(cudaHostUnregister, void *pointer)
DONE(cudaMemcpy, void *to, const void *from, size_t size, enum cudaMemcpyKind kind)
DONE(cudaMemset, void *to, int value, size_t size)
DONE(cudaMemcpyAsync, void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream)
DONE(cudaMemsetAsync, void *to, int value, size_t size, cudaStream_t stream)

// Streams and events.
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { *stream = malloc(16); OK; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) { *stream = malloc(16); OK; }
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) { *priority = 0; OK; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  *status = cudaStreamCaptureStatusNone;
  OK;
}
cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                        cudaGraph_t *graph, const cudaGraphNode_t **nodes, size_t *count) {
  *status = cudaStreamCaptureStatusNone;
  OK;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { *event = malloc(16); OK; }
cudaError_t cudaEventCreate(cudaEvent_t *event) { *event = malloc(16); OK; }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) { *milliseconds = 1; OK; }
DONE(cudaThreadExchangeStreamCaptureMode, enum cudaStreamCaptureMode *mode)
DONE(cudaStreamSynchronize, cudaStream_t stream)
DONE(cudaStreamQuery, cudaStream_t stream)
DONE(cudaStreamDestroy, cudaStream_t stream)
DONE(cudaStreamWaitEvent, cudaStream_t stream, cudaEvent_t event, unsigned flags)
DONE(cudaEventRecord, cudaEvent_t event, cudaStream_t stream)
DONE(cudaEventRecordWithFlags, cudaEvent_t event, cudaStream_t stream, unsigned flags)
DONE(cudaEventQuery, cudaEvent_t event)
DONE(cudaEventSynchronize, cudaEvent_t event)
DONE(cudaEventDestroy, cudaEvent_t event)
