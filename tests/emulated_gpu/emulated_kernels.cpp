// Compiles src/embed/cuda/kernels.cu for the CPU and lists its kernels.
//
// Never: change, wrap or skip anything of that source.
#define ALEXANDRIA_EMULATED
#include "../../src/embed/cuda/kernels.cu"

#include <tuple>
#include <utility>

#include "emulated_kernels.h"

namespace emulated {
namespace {

template <auto FUNCTION>
struct Launcher;

template <typename... Arguments, void (*FUNCTION)(Arguments...)>
struct Launcher<FUNCTION> {
    using All = std::tuple<Arguments...>;

    static void body(const void* arguments) {
        std::apply(FUNCTION, *static_cast<const All*>(arguments));
    }

    template <size_t... INDEX>
    static All read(void* const* arguments, std::index_sequence<INDEX...>) {
        return All(*static_cast<Arguments*>(arguments[INDEX])...);
    }

    static void run(const Grid& grid, void* const* arguments) {
        const All all = read(arguments, std::index_sequence_for<Arguments...>());
        emulated::run(grid, body, &all);
    }

    static constexpr Kernel kernel(const char* name, uint32_t threads) {
        return {name, threads, {sizeof(Arguments)..., 0}, run};
    }
};

}  // namespace

#define KERNEL(name, threads) Launcher<&name>::kernel(#name, threads)
const Kernel KERNELS[] = {
    KERNEL(embed_layer_norm, 256), KERNEL(bias_residual_layer_norm, 256), KERNEL(bias_gelu, 256),
    KERNEL(attention_head32, 128), KERNEL(attention_head64, 128),         KERNEL(pool_normalise, 256),
};
const size_t KERNEL_COUNT = sizeof KERNELS / sizeof KERNELS[0];

}  // namespace emulated
