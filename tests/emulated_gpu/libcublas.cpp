// libcublas.so.13 of the emulated GPU: matrix products of fp16 (or fp32) with sums in fp32, on the CPU.
//
// A product is put on the handle's stream and runs when somebody waits, like all work of the emulated card. Matrices
// are by columns, as BLAS counts them. An fp16 result beyond the largest half is infinite, as in cuBLAS.
// EMULATED_GPU_WRONG, where it is set, makes every product its negative: a check must notice.
// Never: read outside op(A), op(B), or C where beta is zero; accept a pointer that is not the card's.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <thread>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

extern "C" int emulated_gpu_put(void* stream, int (*task)(void*), void* argument);
extern "C" int emulated_gpu_is_allocated(uint64_t pointer, size_t bytes);

namespace {

// cublasStatus_t, cudaDataType, cublasOperation_t, cublasComputeType_t: from cublas_api.h and library_types.h.
enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
constexpr int R_32F = 0, R_16F = 2;
constexpr int COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_32F_FAST_16F = 74, COMPUTE_32F_FAST_TF32 = 77;
constexpr int POINTER_MODE_HOST = 0;

struct Handle {
    void* stream = nullptr;
    int math_mode = 0, pointer_mode = POINTER_MODE_HOST;
};

struct Matrix {
    const void* data;
    int type;
    bool transposed;
    size_t leading;

    float at(size_t row, size_t column) const {
        const size_t index = transposed ? column + row * leading : row + column * leading;
        return type == R_16F ? static_cast<float>(static_cast<const _Float16*>(data)[index])
                             : static_cast<const float*>(data)[index];
    }
};

struct Product {
    size_t m, n, k;
    float alpha, beta;
    Matrix a, b;
    void* c;
    int c_type;
    size_t c_leading;
};

// The micro-kernel's tile: two vectors of 16 rows by 8 columns stay in registers where the CPU has AVX-512.
typedef float Vector __attribute__((vector_size(64)));
constexpr size_t VECTOR = 16, ROWS = 2 * VECTOR, COLUMNS = 8;
// Rows of A packed at once: with 4096 of depth they fill half a MiB of the L2 cache.
constexpr size_t BLOCK_ROWS = ROWS;

size_t round_up(size_t x, size_t to) {
    return (x + to - 1) / to * to;
}

// op(A)'s rows `first ..` as [k][ROWS], zeros beyond m.
void pack_a(const Product& p, size_t first, float* packed) {
    for (size_t row = 0; row < ROWS; ++row) {
        for (size_t k = 0; k < p.k; ++k) {
            packed[k * ROWS + row] = first + row < p.m ? p.a.at(first + row, k) : 0;
        }
    }
}

// op(B) as [n / COLUMNS][k][COLUMNS], zeros beyond n.
void pack_b(const Product& p, float* packed) {
    for (size_t first = 0; first < p.n; first += COLUMNS) {
        for (size_t column = 0; column < COLUMNS; ++column) {
            for (size_t k = 0; k < p.k; ++k) {
                packed[first * p.k + k * COLUMNS + column] = first + column < p.n ? p.b.at(k, first + column) : 0;
            }
        }
    }
}

void multiply_tile(size_t depth, const float* a, const float* b, Vector (&sums)[COLUMNS][2]) {
    for (size_t column = 0; column < COLUMNS; ++column) {
        sums[column][0] = sums[column][1] = Vector{};
    }
    for (size_t k = 0; k < depth; ++k) {
        Vector low, high;
        memcpy(&low, a + k * ROWS, sizeof low);
        memcpy(&high, a + k * ROWS + VECTOR, sizeof high);
        for (size_t column = 0; column < COLUMNS; ++column) {
            sums[column][0] += low * b[k * COLUMNS + column];
            sums[column][1] += high * b[k * COLUMNS + column];
        }
    }
}

void store(const Product& p, size_t row, size_t column, float sum) {
    const size_t index = row + column * p.c_leading;
    if (p.c_type == R_16F) {
        _Float16* const c = static_cast<_Float16*>(p.c) + index;
        *c = static_cast<_Float16>(p.alpha * sum + (p.beta == 0 ? 0 : p.beta * static_cast<float>(*c)));
    } else {
        float* const c = static_cast<float*>(p.c) + index;
        *c = p.alpha * sum + (p.beta == 0 ? 0 : p.beta * *c);
    }
}

// The blocks of rows `first_block`, `first_block + step`, ...
void multiply_rows(const Product& p, const float* packed_b, size_t first_block, size_t step) {
    float* const packed_a = static_cast<float*>(aligned_alloc(64, round_up(p.k, 16) * ROWS * sizeof(float)));
    for (size_t first = first_block * BLOCK_ROWS; first < p.m; first += step * BLOCK_ROWS) {
        pack_a(p, first, packed_a);
        for (size_t column = 0; column < p.n; column += COLUMNS) {
            Vector sums[COLUMNS][2];
            multiply_tile(p.k, packed_a, packed_b + column * p.k, sums);
            for (size_t j = 0; j < std::min(COLUMNS, p.n - column); ++j) {
                for (size_t i = 0; i < std::min(ROWS, p.m - first); ++i) {
                    store(p, first + i, column + j, sums[j][i / VECTOR][i % VECTOR]);
                }
            }
        }
    }
    free(packed_a);
}

void multiply(const Product& p) {
    std::vector<float> packed_b(round_up(p.n, COLUMNS) * p.k);
    pack_b(p, packed_b.data());
    // A thread is worth its start from some ten million multiplications.
    if (p.m * p.n * p.k > 20000000 && p.m > BLOCK_ROWS) {
        std::thread other(multiply_rows, std::cref(p), packed_b.data(), 1, 2);
        multiply_rows(p, packed_b.data(), 0, 2);
        other.join();
    } else {
        multiply_rows(p, packed_b.data(), 0, 1);
    }
}

int run(void* product) {
    multiply(*static_cast<Product*>(product));
    delete static_cast<Product*>(product);
    return 0;
}

size_t bytes_of(size_t rows, size_t columns, size_t leading, int type) {
    return rows == 0 || columns == 0 ? 0 : ((columns - 1) * leading + rows) * (type == R_16F ? 2 : 4);
}

bool is_on_card(const void* data, size_t bytes) {
    return emulated_gpu_is_allocated(reinterpret_cast<uint64_t>(data), bytes) != 0;
}

int gemm(Handle* handle, int trans_a, int trans_b, int m, int n, int k, const void* alpha, const void* a, int a_type,
         int lda, const void* b, int b_type, int ldb, const void* beta, void* c, int c_type, int ldc, int compute) {
    if (handle == nullptr) {
        return NOT_INITIALIZED;
    }
    const bool halves = a_type == R_16F && b_type == R_16F && (c_type == R_16F || c_type == R_32F);
    const bool singles = a_type == R_32F && b_type == R_32F && c_type == R_32F;
    const bool sums = compute == COMPUTE_32F || compute == COMPUTE_32F_PEDANTIC || compute == COMPUTE_32F_FAST_TF32 ||
                      compute == COMPUTE_32F_FAST_16F;
    if ((!halves && !singles) || !sums || handle->pointer_mode != POINTER_MODE_HOST) {
        return NOT_SUPPORTED;
    }
    const int rows_a = trans_a ? k : m, rows_b = trans_b ? n : k;
    if (m < 0 || n < 0 || k < 0 || lda < std::max(1, rows_a) || ldb < std::max(1, rows_b) || ldc < std::max(1, m)) {
        return INVALID_VALUE;
    }
    if (m == 0 || n == 0) {
        return SUCCESS;
    }
    Product p{static_cast<size_t>(m), static_cast<size_t>(n), static_cast<size_t>(k), 0, 0,
              {a, a_type, trans_a != 0, static_cast<size_t>(lda)}, {b, b_type, trans_b != 0, static_cast<size_t>(ldb)},
              c, c_type, static_cast<size_t>(ldc)};
    memcpy(&p.alpha, alpha, sizeof p.alpha);
    if (getenv("EMULATED_GPU_WRONG") != nullptr) {
        p.alpha = -p.alpha;
    }
    memcpy(&p.beta, beta, sizeof p.beta);
    const size_t columns_a = trans_a ? p.m : p.k, columns_b = trans_b ? p.k : p.n;
    if (!is_on_card(a, bytes_of(static_cast<size_t>(rows_a), columns_a, p.a.leading, a_type)) ||
        !is_on_card(b, bytes_of(static_cast<size_t>(rows_b), columns_b, p.b.leading, b_type)) ||
        !is_on_card(c, bytes_of(p.m, p.n, p.c_leading, c_type))) {
        return EXECUTION_FAILED;
    }
    Product* const kept = new Product(p);
    if (emulated_gpu_put(handle->stream, run, kept) != 0) {
        delete kept;
        return EXECUTION_FAILED;
    }
    return SUCCESS;
}

}  // namespace

API cublasCreate_v2(Handle** handle) {
    *handle = new Handle();
    return SUCCESS;
}

API cublasDestroy_v2(Handle* handle) {
    delete handle;
    return SUCCESS;
}

API cublasGetVersion_v2(Handle*, int* version) {
    *version = 130100;
    return SUCCESS;
}

// MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL are 0, 1, 2.
API cublasGetProperty(int property, int* value) {
    const int version[] = {13, 1, 0};
    if (property < 0 || property > 2) {
        return INVALID_VALUE;
    }
    *value = version[property];
    return SUCCESS;
}

API cublasSetStream_v2(Handle* handle, void* stream) {
    handle->stream = stream;
    return SUCCESS;
}

API cublasGetStream_v2(Handle* handle, void** stream) {
    *stream = handle->stream;
    return SUCCESS;
}

API cublasSetWorkspace_v2(Handle*, void* workspace, size_t bytes) {
    return bytes == 0 || is_on_card(workspace, bytes) ? SUCCESS : INVALID_VALUE;
}

API cublasSetMathMode(Handle* handle, int mode) {
    handle->math_mode = mode;
    return SUCCESS;
}

API cublasGetMathMode(Handle* handle, int* mode) {
    *mode = handle->math_mode;
    return SUCCESS;
}

API cublasSetPointerMode_v2(Handle* handle, int mode) {
    handle->pointer_mode = mode;
    return SUCCESS;
}

API cublasGetPointerMode_v2(Handle* handle, int* mode) {
    *mode = handle->pointer_mode;
    return SUCCESS;
}

API cublasSetAtomicsMode(Handle*, int) {
    return SUCCESS;
}

extern "C" __attribute__((visibility("default"))) const char* cublasGetStatusName(int status) {
    switch (status) {
        case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
        case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
        default: return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}

extern "C" __attribute__((visibility("default"))) const char* cublasGetStatusString(int status) {
    return cublasGetStatusName(status);
}

API cublasGemmEx(Handle* handle, int trans_a, int trans_b, int m, int n, int k, const void* alpha, const void* a,
                 int a_type, int lda, const void* b, int b_type, int ldb, const void* beta, void* c, int c_type,
                 int ldc, int compute, int) {
    return gemm(handle, trans_a, trans_b, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc,
                compute);
}

API cublasSgemm_v2(Handle* handle, int trans_a, int trans_b, int m, int n, int k, const float* alpha, const float* a,
                   int lda, const float* b, int ldb, const float* beta, float* c, int ldc) {
    return gemm(handle, trans_a, trans_b, m, n, k, alpha, a, R_32F, lda, b, R_32F, ldb, beta, c, R_32F, ldc,
                COMPUTE_32F);
}

API cublasGemmStridedBatchedEx(Handle* handle, int trans_a, int trans_b, int m, int n, int k, const void* alpha,
                               const char* a, int a_type, int lda, long long stride_a, const char* b, int b_type,
                               int ldb, long long stride_b, const void* beta, char* c, int c_type, int ldc,
                               long long stride_c, int batches, int compute, int) {
    int status = SUCCESS;
    for (int batch = 0; batch < batches && status == SUCCESS; ++batch) {
        const auto offset = [batch](int type, long long stride) { return batch * stride * (type == R_16F ? 2 : 4); };
        status = gemm(handle, trans_a, trans_b, m, n, k, alpha, a + offset(a_type, stride_a), a_type, lda,
                      b + offset(b_type, stride_b), b_type, ldb, beta, c + offset(c_type, stride_c), c_type, ldc,
                      compute);
    }
    return status;
}
