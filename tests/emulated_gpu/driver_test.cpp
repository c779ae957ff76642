// The emulated driver and cuBLAS keep what they promise to tests: work runs late, limits hold, misuse is refused, and a
// matrix product is right in every orientation.
//
// Prints what fails, ends with 1 then. Never: look into the libraries; all goes through their entry points.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fstream>
#include <random>
#include <string>
#include <vector>

extern "C" {
int cuInit(unsigned);
int cuDeviceGetAttribute(int*, int, int);
int cuDevicePrimaryCtxRetain(void**, int);
int cuDevicePrimaryCtxRelease_v2(int);
int cuCtxSetCurrent(void*);
int cuCtxSynchronize();
int cuMemGetInfo_v2(size_t*, size_t*);
int cuMemAlloc_v2(uint64_t*, size_t);
int cuMemFree_v2(uint64_t);
int cuMemFreeAsync(uint64_t, void*);
int cuMemHostAlloc(void**, size_t, unsigned);
int cuMemFreeHost(void*);
int cuMemcpyHtoD_v2(uint64_t, const void*, size_t);
int cuMemcpyDtoH_v2(void*, uint64_t, size_t);
int cuMemcpyHtoDAsync_v2(uint64_t, const void*, size_t, void*);
int cuMemcpyDtoHAsync_v2(void*, uint64_t, size_t, void*);
int cuMemsetD32Async(uint64_t, uint32_t, size_t, void*);
int cuStreamCreate(void**, unsigned);
int cuStreamSynchronize(void*);
int cuStreamWaitEvent(void*, void*, unsigned);
int cuEventCreate(void**, unsigned);
int cuEventRecord(void*, void*);
int cuEventSynchronize(void*);
int cuEventQuery(void*);
int cuModuleLoadData(void**, const void*);
int cuModuleGetFunction(void**, void*, const char*);
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
int cublasCreate_v2(void**);
int cublasDestroy_v2(void*);
int cublasSetStream_v2(void*, void*);
int cublasGemmEx(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int,
                 const void*, void*, int, int, int, int);
int nvmlInit_v2();
int nvmlDeviceGetHandleByIndex_v2(unsigned, void**);
int nvmlDeviceGetUtilizationRates(void*, unsigned*);
int nvmlDeviceGetMemoryInfo(void*, unsigned long long*);
}

namespace {

int failures = 0;

void check(bool is, const char* what, int line) {
    if (!is) {
        printf("FAILED line %d: %s\n", line, what);
        ++failures;
    }
}

#define CHECK(condition) check(condition, #condition, __LINE__)

uint64_t device_memory(size_t bytes) {
    uint64_t pointer = 0;
    CHECK(cuMemAlloc_v2(&pointer, bytes) == 0);
    return pointer;
}

// PTX as nvcc declares the kernels, without bodies.
std::string ptx(const char* version, const char* target, const char* gelu_arguments) {
    const std::string u64 = ".param .u64 a,", u32 = ".param .u32 b,", f32 = ".param .f32 c,";
    std::string text = std::string(".version ") + version + "\n.target " + target + "\n";
    const auto entry = [&text](const std::string& name, std::string arguments, const char* threads) {
        arguments.pop_back();
        text += ".visible .entry " + name + "(\n" + arguments + "\n)\n.maxntid " + threads + ", 1, 1\n{ ret; }\n";
    };
    const std::string attention = u64 + u64 + u64 + u64 + u32;
    entry("embed_layer_norm", u64 + u64 + u64 + u64 + u64 + u64 + u32 + u32 + f32, "256");
    entry("bias_residual_layer_norm", u64 + u64 + u64 + u32 + u32 + f32, "256");
    entry("bias_gelu", gelu_arguments, "256");
    entry("attention_head32", attention, "128");
    entry("attention_head64", attention, "128");
    entry("pool_normalise", u64 + u64 + u64 + u32 + u32, "256");
    return text;
}

const char GELU_ARGUMENTS[] = ".param .u64 a,.param .u64 b,.param .u32 c,.param .u32 d,";

void check_memory(const std::string& tenant) {
    size_t available = 0, total = 0;
    CHECK(cuMemGetInfo_v2(&available, &total) == 0 && total == 64 << 20 && available == total);
    uint64_t pointer = 0, other = 0;
    CHECK(cuMemAlloc_v2(&pointer, (64 << 20) + 1) == 2);
    CHECK(cuMemAlloc_v2(&pointer, 40 << 20) == 0 && pointer % 256 == 0);
    CHECK(cuMemAlloc_v2(&other, 30 << 20) == 2);
    std::ofstream(tenant) << (20 << 20);
    CHECK(cuMemGetInfo_v2(&available, &total) == 0 && available == 4 << 20);
    CHECK(cuMemAlloc_v2(&other, 5 << 20) == 2);
    std::ofstream(tenant) << 0;
    CHECK(cuMemAlloc_v2(&other, 5 << 20) == 0 && cuMemFree_v2(other) == 0);
    const uint32_t number = 7;
    CHECK(cuMemcpyHtoD_v2(pointer + (40 << 20) - 4, &number, 4) == 0);
    CHECK(cuMemcpyHtoD_v2(pointer + (40 << 20) - 3, &number, 4) == 1);
    CHECK(cuMemcpyHtoD_v2(pointer - 4, &number, 4) == 1);
    CHECK(cuMemFree_v2(pointer + 256) == 1);
    CHECK(cuMemFree_v2(pointer) == 0 && cuMemFree_v2(pointer) == 1);
}

void check_lateness(void* stream) {
    void* second = nullptr;
    CHECK(cuStreamCreate(&second, 1) == 0);
    const uint64_t memory = device_memory(8);
    uint32_t* host = nullptr;
    CHECK(cuMemHostAlloc(reinterpret_cast<void**>(&host), 8, 0) == 0);
    // Read late: what is written before the wait is what the card gets.
    host[0] = 1;
    CHECK(cuMemcpyHtoDAsync_v2(memory, host, 4, stream) == 0);
    host[0] = 2;
    CHECK(cuStreamSynchronize(stream) == 0);
    uint32_t number = 0;
    CHECK(cuMemcpyDtoH_v2(&number, memory, 4) == 0 && number == 2);
    // Written late, and 0xff until then.
    host[1] = 5;
    CHECK(cuMemcpyDtoHAsync_v2(host + 1, memory, 4, stream) == 0 && host[1] == 0xffffffff);
    CHECK(cuStreamSynchronize(stream) == 0 && host[1] == 2);
    // An event: asked, it comes nearer; waited for by another stream, it orders the two.
    void* event = nullptr;
    CHECK(cuEventCreate(&event, 2) == 0 && cuEventQuery(event) == 0);
    CHECK(cuMemsetD32Async(memory, 3, 1, stream) == 0 && cuEventRecord(event, stream) == 0);
    CHECK(cuStreamWaitEvent(second, event, 0) == 0);
    CHECK(cuMemcpyDtoHAsync_v2(host, memory, 4, second) == 0 && host[0] == 0xffffffff);
    CHECK(cuEventQuery(event) == 600 && cuEventQuery(event) == 0);
    CHECK(cuStreamSynchronize(second) == 0 && host[0] == 3);
    CHECK(cuMemsetD32Async(memory, 4, 1, stream) == 0 && cuEventRecord(event, stream) == 0);
    CHECK(cuMemcpyDtoHAsync_v2(host, memory, 4, second) == 0 && cuStreamWaitEvent(second, event, 0) == 0);
    CHECK(cuStreamSynchronize(second) == 0 && host[0] == 3);
    CHECK(cuEventSynchronize(event) == 0);
    CHECK(cuMemFreeAsync(memory, stream) == 0 && cuStreamSynchronize(stream) == 0 && cuMemFree_v2(memory) == 1);
    CHECK(cuMemFreeHost(host) == 0 && cuMemFreeHost(host) == 1);
}

void check_modules(void* stream) {
    void* module = nullptr;
    CHECK(cuModuleLoadData(&module, "ELF") == 200);
    CHECK(cuModuleLoadData(&module, ptx("9.1", "sm_80", GELU_ARGUMENTS).c_str()) == 222);
    CHECK(cuModuleLoadData(&module, ptx("9.0", "sm_89", GELU_ARGUMENTS).c_str()) == 209);
    CHECK(cuModuleLoadData(&module, ptx("9.0", "sm_80", ".param .u64 a,.param .u64 b,").c_str()) == 218);
    CHECK(cuModuleLoadData(&module, ptx("9.0", "sm_80", GELU_ARGUMENTS).c_str()) == 0);
    void* function = nullptr;
    CHECK(cuModuleGetFunction(&function, module, "gelu") == 500);
    CHECK(cuModuleGetFunction(&function, module, "bias_gelu") == 0);
    const std::vector<uint16_t> halves(2048, 0x4000);
    const std::vector<float> zeros(2048);
    uint64_t x = device_memory(4096), bias = device_memory(8192);
    CHECK(cuMemcpyHtoD_v2(x, halves.data(), 4096) == 0 && cuMemcpyHtoD_v2(bias, zeros.data(), 8192) == 0);
    uint32_t rows = 1, columns = 2048;
    void* arguments[] = {&x, &bias, &rows, &columns};
    CHECK(cuLaunchKernel(function, 1, 1, 1, 512, 1, 1, 0, stream, arguments, nullptr) == 701);
    CHECK(cuLaunchKernel(function, 1, 1, 1, 128, 1, 1, 0, stream, arguments, nullptr) == 1);
    CHECK(cuLaunchKernel(function, 0, 1, 1, 256, 1, 1, 0, stream, arguments, nullptr) == 1);
    // The settings make the second launch that would be good fail.
    CHECK(cuLaunchKernel(function, 1, 1, 1, 256, 1, 1, 0, stream, arguments, nullptr) == 0);
    rows = 0;
    uint16_t half = 0;
    CHECK(cuMemcpyDtoH_v2(&half, x + 4094, 2) == 0 && half == 0x4000);
    CHECK(cuStreamSynchronize(stream) == 0);
    // gelu(2) = 1.9545.
    CHECK(cuMemcpyDtoH_v2(&half, x + 4094, 2) == 0 && half == 0x3fd1);
    CHECK(cuLaunchKernel(function, 1, 1, 1, 256, 1, 1, 0, stream, arguments, nullptr) == 719);
    CHECK(cuLaunchKernel(function, 1, 1, 1, 256, 1, 1, 0, stream, arguments, nullptr) == 0);
    CHECK(cuMemFree_v2(x) == 0);
    // An address that is not the card's: an error from then on, until the context is gone.
    CHECK(cuLaunchKernel(function, 1, 1, 1, 256, 1, 1, 0, stream, arguments, nullptr) == 0);
    CHECK(cuStreamSynchronize(stream) == 700 && cuCtxSynchronize() == 700);
    CHECK(cuDevicePrimaryCtxRelease_v2(0) == 0 && cuCtxSynchronize() == 0);
    size_t available = 0, total = 0;
    CHECK(cuMemGetInfo_v2(&available, &total) == 0 && available == total);
}

// The card is busy while it works and not while nobody waits for it.
void check_management(void* stream) {
    void* device = nullptr;
    unsigned busy[2] = {101, 101};
    unsigned long long memory[3] = {};
    CHECK(nvmlDeviceGetHandleByIndex_v2(0, &device) == 1);
    CHECK(nvmlInit_v2() == 0 && nvmlDeviceGetHandleByIndex_v2(0, &device) == 0);
    CHECK(nvmlDeviceGetHandleByIndex_v2(1, &device) == 2 && nvmlDeviceGetHandleByIndex_v2(0, &device) == 0);
    const uint64_t pointer = device_memory(48 << 20);
    CHECK(nvmlDeviceGetMemoryInfo(device, memory) == 0 && memory[0] == 64 << 20 && memory[2] == 48 << 20);
    CHECK(nvmlDeviceGetUtilizationRates(device, busy) == 0);
    CHECK(cuMemsetD32Async(pointer, 1, 12 << 20, stream) == 0);
    usleep(10000);
    CHECK(nvmlDeviceGetUtilizationRates(device, busy) == 0 && busy[0] == 0);
    CHECK(cuStreamSynchronize(stream) == 0);
    CHECK(nvmlDeviceGetUtilizationRates(device, busy) == 0 && busy[0] > 0 && busy[0] <= 100);
    CHECK(cuMemFree_v2(pointer) == 0);
}

void check_product(void* handle, void* stream, bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k,
                   float alpha, float beta) {
    std::mt19937 generator(static_cast<unsigned>(m * n * k));
    std::normal_distribution<float> normal;
    // Leading dimensions larger than needed; what lies between the columns is NaN and must stay.
    const size_t rows_a = transpose_a ? k : m, columns_a = transpose_a ? m : k;
    const size_t rows_b = transpose_b ? n : k, columns_b = transpose_b ? k : n;
    const size_t lda = rows_a + 3, ldb = rows_b + 1, ldc = m + 2;
    const _Float16 nan = static_cast<_Float16>(NAN);
    std::vector<_Float16> a(lda * columns_a, nan), b(ldb * columns_b, nan), c(ldc * n, nan), out(ldc * n);
    const auto fill = [&](std::vector<_Float16>& matrix, size_t rows, size_t columns, size_t leading) {
        for (size_t column = 0; column < columns; ++column) {
            for (size_t row = 0; row < rows; ++row) {
                matrix[column * leading + row] = static_cast<_Float16>(normal(generator));
            }
        }
    };
    fill(a, rows_a, columns_a, lda);
    fill(b, rows_b, columns_b, ldb);
    if (beta != 0) {
        fill(c, m, n, ldc);
    }
    const uint64_t on_a = device_memory(a.size() * 2), on_b = device_memory(b.size() * 2);
    const uint64_t on_c = device_memory(c.size() * 2);
    CHECK(cuMemcpyHtoD_v2(on_a, a.data(), a.size() * 2) == 0 && cuMemcpyHtoD_v2(on_b, b.data(), b.size() * 2) == 0);
    CHECK(cuMemcpyHtoD_v2(on_c, c.data(), c.size() * 2) == 0);
    const auto pointer = [](uint64_t address) { return reinterpret_cast<void*>(address); };
    const auto product = [&](size_t leading_c) {
        return cublasGemmEx(handle, transpose_a, transpose_b, static_cast<int>(m), static_cast<int>(n),
                            static_cast<int>(k), &alpha, pointer(on_a), 2, static_cast<int>(lda), pointer(on_b), 2,
                            static_cast<int>(ldb), &beta, pointer(on_c), 2, static_cast<int>(leading_c), 68, -1);
    };
    CHECK(product(m - 1) == 7);
    CHECK(n == 1 || product(ldc + 9) == 13);
    CHECK(product(ldc) == 0 && cuStreamSynchronize(stream) == 0);
    CHECK(cuMemcpyDtoH_v2(out.data(), on_c, out.size() * 2) == 0);
    for (size_t column = 0; column < n; ++column) {
        for (size_t row = 0; row < ldc; ++row) {
            const float value = static_cast<float>(out[column * ldc + row]);
            if (row >= m) {
                CHECK(isnan(value));
                continue;
            }
            double sum = 0, size = 0;
            for (size_t i = 0; i < k; ++i) {
                const double x = static_cast<float>(transpose_a ? a[row * lda + i] : a[i * lda + row]);
                const double y = static_cast<float>(transpose_b ? b[i * ldb + column] : b[column * ldb + i]);
                sum += x * y;
                size += fabs(x * y);
            }
            const double expected = alpha * sum + (beta == 0 ? 0 : beta * static_cast<double>(c[column * ldc + row]));
            const double allowed = fabs(expected) / 2048 + size * static_cast<double>(k) * ldexp(1, -24) + 1e-7;
            if (!(fabs(value - expected) <= allowed)) {
                printf("FAILED %zu x %zu x %zu, %d %d: [%zu, %zu] is %g, not %g\n", m, n, k, transpose_a, transpose_b,
                       row, column, static_cast<double>(value), expected);
                ++failures;
                return;
            }
        }
    }
    CHECK(cuMemFree_v2(on_a) == 0 && cuMemFree_v2(on_b) == 0 && cuMemFree_v2(on_c) == 0);
}

}  // namespace

int main() {
    char tenant[] = "/tmp/emulated-gpu-tenant.XXXXXX";
    CHECK(close(mkstemp(tenant)) == 0);
    setenv("EMULATED_GPU_MEMORY", "67108864", 1);
    setenv("EMULATED_GPU_TENANT", tenant, 1);
    setenv("EMULATED_GPU_LAUNCH_FAILS", "2", 1);
    void* context = nullptr;
    CHECK(cuDevicePrimaryCtxRetain(&context, 0) == 3);
    CHECK(cuInit(0) == 0 && cuDevicePrimaryCtxRetain(&context, 0) == 0);
    uint64_t pointer = 0;
    CHECK(cuMemAlloc_v2(&pointer, 8) == 201);
    CHECK(cuCtxSetCurrent(context) == 0);
    int major = 0, minor = 0;
    CHECK(cuDeviceGetAttribute(&major, 75, 0) == 0 && cuDeviceGetAttribute(&minor, 76, 0) == 0);
    CHECK(major == 8 && minor == 6);
    void *stream = nullptr, *handle = nullptr;
    CHECK(cuStreamCreate(&stream, 1) == 0);
    check_memory(tenant);
    remove(tenant);
    check_lateness(stream);
    CHECK(cublasCreate_v2(&handle) == 0 && cublasSetStream_v2(handle, stream) == 0);
    for (const bool transpose_a : {false, true}) {
        for (const bool transpose_b : {false, true}) {
            check_product(handle, stream, transpose_a, transpose_b, 1, 1, 1, 1, 0);
            check_product(handle, stream, transpose_a, transpose_b, 33, 17, 20, 1, 0);
            check_product(handle, stream, transpose_a, transpose_b, 70, 9, 100, 0.5f, 2);
            check_product(handle, stream, transpose_a, transpose_b, 384, 300, 384, 1, 0);
        }
    }
    CHECK(cublasDestroy_v2(handle) == 0);
    check_management(stream);
    check_modules(stream);
    printf("%s\n", failures == 0 ? "all checks passed" : "checks failed");
    return failures != 0;
}
