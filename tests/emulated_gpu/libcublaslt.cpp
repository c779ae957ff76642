// libcublasLt.so.13 of the emulated GPU: there only because NVIDIA's libcublas needs a library of this name.
//
// Never: offer a product; the encoder uses cuBLAS alone.
#include <stddef.h>

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() {
    return 130100;
}
