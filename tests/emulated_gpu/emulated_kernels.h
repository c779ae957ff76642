// The kernels of src/embed/cuda/kernels.cu as the emulated GPU offers them: by name, with arguments as cuLaunchKernel
// takes them.
//
// Never: name a kernel that the source does not have; the linker sees to that.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cuda_on_cpu.h"

namespace emulated {

struct Kernel {
    const char* name;
    // Threads of a block, as the kernel's comment says.
    uint32_t threads;
    // Size of each argument in bytes, zero-terminated.
    uint8_t argument_bytes[12];
    void (*run)(const Grid& grid, void* const* arguments);
};

extern const Kernel KERNELS[];
extern const size_t KERNEL_COUNT;

}  // namespace emulated
