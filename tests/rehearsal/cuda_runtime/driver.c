// libcuda.so.1 for a machine without a driver: torch links against it and looks names up in it.
#include <dlfcn.h>
#include <stddef.h>

#define NAME(name) \
  int name(void) { return 0; }

NAME(cuDeviceGetAttribute)
NAME(cuDevicePrimaryCtxGetState)
NAME(cuMemAddressFree)
NAME(cuMemAddressReserve)
NAME(cuMemCreate)
NAME(cuMemExportToShareableHandle)
NAME(cuMemGetAllocationGranularity)
NAME(cuMemImportFromShareableHandle)
NAME(cuMemMap)
NAME(cuMemRelease)
NAME(cuMemSetAccess)
NAME(cuMemUnmap)
NAME(cuMemsetD32Async)
NAME(cuMulticastAddDevice)
NAME(cuMulticastBindMem)
NAME(cuMulticastCreate)
NAME(cuMulticastUnbind)
NAME(cuStreamWriteValue32)

int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuGetErrorName(int error, const char **text) { *text = "pretended"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "pretended"; return 0; }

static int look_up(const char *name, void **pointer) {
  *pointer = dlsym(RTLD_DEFAULT, name);
  return *pointer ? 0 : 500;  // CUDA_ERROR_NOT_FOUND
}
int cuGetProcAddress(const char *name, void **pointer, int version, unsigned long long flags) {
  return look_up(name, pointer);
}
int cuGetProcAddress_v2(const char *name, void **pointer, int version, unsigned long long flags, void *status) {
  return look_up(name, pointer);
}
