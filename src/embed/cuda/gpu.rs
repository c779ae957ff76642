//! The card: its libraries (loaded when asked for, never linked), context, stream, cuBLAS and kernels; memory on it.
//!
//! The program starts and runs without any of this where there is no GPU: crate cudarc looks libcuda.so.1 and
//! libcublas.so.13 up by dlopen(3), and [`probe`] asks whether they are there before anything else is called, because
//! cudarc panics on a call into a library that is missing.

use std::path::Path;
use std::sync::Arc;

use cudarc::cublas::result::CublasError;
use cudarc::cublas::{self, CudaBlas};
use cudarc::driver::sys::{self, CUevent_flags, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaFunction, CudaStream, DriverError, PinnedHostSlice, result};
use cudarc::nvrtc::Ptx;

use crate::embed::{CudaFacts, EmbedError, NoCuda};

/// The kernels of `kernels.cu`, compiled by the build script to PTX for compute capability 8.0; the driver compiles
/// them for the card when they are loaded, and keeps the result in its own cache.
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// The CUDA version of the compiler that made the PTX, as a driver says its own: 13000 is 13.0. An older driver refuses
/// the PTX.
const PTX_CUDA_VERSION: &str = env!("KERNELS_CUDA_VERSION");

/// cuBLAS' scratch memory, in bytes: what NVIDIA recommends for Hopper; smaller cards need less.
/// <https://docs.nvidia.com/cuda/cublas/#cublassetworkspace>
pub const CUBLAS_WORKSPACE: usize = 32 << 20;

/// Looks for a usable GPU, the first one that the driver shows (`CUDA_VISIBLE_DEVICES` chooses).
pub fn probe(cuda_libraries: &Path) -> Result<CudaFacts, NoCuda> {
    // SAFETY: loading the driver's library runs its constructors and nothing of ours.
    if !unsafe { sys::is_culib_present() } {
        return Err(NoCuda::NoDriver);
    }
    let no_device = |error: DriverError| NoCuda::NoDevice(error.to_string());
    let mut driver = 0;
    // SAFETY: the library is there, and the pointer is to a live i32. This call needs no initialisation.
    unsafe { sys::cuDriverGetVersion(&mut driver) }.result().map_err(no_device)?;
    let needed = PTX_CUDA_VERSION.parse().unwrap_or(0);
    if driver < needed {
        return Err(NoCuda::OldDriver { driver, needed });
    }
    result::init().map_err(no_device)?;
    if CudaContext::device_count().map_err(no_device)? == 0 {
        return Err(NoCuda::NoDevice("it shows 0 devices".into()));
    }
    let context = CudaContext::new(0).map_err(no_device)?;
    let name = context.name().map_err(no_device)?;
    let (major, minor) = context.compute_capability().map_err(no_device)?;
    if major < 8 {
        return Err(NoCuda::OldDevice { name, major, minor });
    }
    load_cublas(cuda_libraries)?;
    let (free, total) = context.mem_get_info().map_err(no_device)?;
    Ok(CudaFacts { name, major, minor, total: total as u64, free: free as u64, driver })
}

fn load_cublas(folder: &Path) -> Result<(), NoCuda> {
    if !folder.as_os_str().is_empty() {
        // In the order of their dependence; a later lookup by the bare name finds what is loaded already.
        for name in ["libcublasLt.so", "libcublas.so"] {
            for version in [".13", ".12", ""] {
                // SAFETY: loading cuBLAS runs its constructors and nothing of ours.
                if let Ok(library) = unsafe { libloading::Library::new(folder.join(format!("{name}{version}"))) } {
                    // Loaded for the life of the process.
                    std::mem::forget(library);
                    break;
                }
            }
        }
    }
    // SAFETY: as above.
    if unsafe { cublas::sys::is_culib_present() } { Ok(()) } else { Err(NoCuda::NoCublas) }
}

/// An open card. Everything is issued on one stream, so operations happen in the order they are issued.
pub struct Gpu {
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    pub blas: CudaBlas,
    pub kernels: Kernels,
    /// cuBLAS' scratch memory; freed after `blas`, for fields are dropped in their order.
    cublas_workspace: DeviceBuffer,
}

/// The functions of `kernels.cu`.
pub struct Kernels {
    pub embed_layer_norm: CudaFunction,
    pub bias_residual_layer_norm: CudaFunction,
    pub bias_gelu: CudaFunction,
    pub attention_head32: CudaFunction,
    pub attention_head64: CudaFunction,
    pub pool_normalise: CudaFunction,
}

impl Gpu {
    /// Opens the card that [`probe`] found.
    pub fn open() -> Result<Self, EmbedError> {
        let context = CudaContext::new(0).map_err(driver_error)?;
        // The embedder's thread sleeps while the card works, rather than spin on a core.
        context.set_blocking_synchronize().map_err(driver_error)?;
        let stream = context.new_stream().map_err(driver_error)?;
        let module = context.load_module(Ptx::from_src(PTX)).map_err(driver_error)?;
        let kernel = |name: &str| module.load_function(name).map_err(driver_error);
        let kernels = Kernels {
            embed_layer_norm: kernel("embed_layer_norm")?,
            bias_residual_layer_norm: kernel("bias_residual_layer_norm")?,
            bias_gelu: kernel("bias_gelu")?,
            attention_head32: kernel("attention_head32")?,
            attention_head64: kernel("attention_head64")?,
            pool_normalise: kernel("pool_normalise")?,
        };
        let cublas_workspace = DeviceBuffer::new(&context, CUBLAS_WORKSPACE)?;
        let blas = CudaBlas::new(stream.clone()).map_err(cublas_error)?;
        // SAFETY: the handle is alive, and the workspace lives as long as it, in the same struct.
        unsafe {
            cublas::sys::cublasSetWorkspace_v2(*blas.handle(), cublas_workspace.address as *mut _, CUBLAS_WORKSPACE)
                .result()
                .and_then(|()| {
                    // Sums are accumulated in f32, also where a product is split along its inner dimension.
                    cublas::sys::cublasSetMathMode(
                        *blas.handle(),
                        cublas::sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION,
                    )
                    .result()
                })
                .map_err(cublas_error)?;
        }
        Ok(Self { context, stream, blas, kernels, cublas_workspace })
    }

    /// Makes the calling thread one that may use the card.
    pub fn bind(&self) -> Result<(), EmbedError> {
        self.context.bind_to_thread().map_err(driver_error)
    }

    pub fn synchronize(&self) -> Result<(), EmbedError> {
        self.stream.synchronize().map_err(driver_error)
    }

    /// Bytes that are free, and bytes there are.
    pub fn memory(&self) -> Result<(u64, u64), EmbedError> {
        let (free, total) = self.context.mem_get_info().map_err(driver_error)?;
        Ok((free as u64, total as u64))
    }

    /// Bytes that this struct itself takes.
    pub fn bytes(&self) -> usize {
        self.cublas_workspace.bytes
    }

    /// An event on which a waiting thread sleeps.
    pub fn event(&self) -> Result<CudaEvent, EmbedError> {
        // cudarc takes one flag; sleeping matters more than what a timestamp costs.
        self.context.new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC)).map_err(driver_error)
    }

    /// Copies to the card, in the stream's order.
    ///
    /// # Safety
    /// `to` holds that much on the card; `from` is pinned and is not written before an event after this call has
    /// happened.
    pub unsafe fn copy_in<T>(&self, to: u64, from: &[T]) -> Result<(), EmbedError> {
        // SAFETY: the caller's.
        unsafe { result::memcpy_htod_async(to, from, self.stream.cu_stream()) }.map_err(driver_error)
    }

    /// Copies from the card, in the stream's order.
    ///
    /// # Safety
    /// `from` holds that much on the card; `to` is pinned and is not touched before an event after this call has
    /// happened.
    pub unsafe fn copy_out<T>(&self, to: &mut [T], from: u64) -> Result<(), EmbedError> {
        // SAFETY: the caller's.
        unsafe { result::memcpy_dtoh_async(to, from, self.stream.cu_stream()) }.map_err(driver_error)
    }

    /// `out[tokens, rows] = x[tokens, inner] weight[rows, inner]^T`, all f16 and row-major, sums in f32.
    ///
    /// # Safety
    /// The addresses hold that much, on this card, for as long as the stream works on them.
    pub unsafe fn matmul(
        &self,
        out: u64,
        x: u64,
        weight: u64,
        (tokens, inner, rows): (usize, usize, usize),
    ) -> Result<(), EmbedError> {
        let (one, zero) = (1f32, 0f32);
        let int = |size: usize| {
            i32::try_from(size).map_err(|_| EmbedError::Compute(format!("a matrix side of {size} is too long")))
        };
        let (tokens, inner, rows) = (int(tokens)?, int(inner)?, int(rows)?);
        // cuBLAS is column-major: a row-major matrix is its transpose there, so this computes out^T = weight x^T.
        // SAFETY: the caller's; alpha and beta are read before the call returns (host pointer mode, the default).
        unsafe {
            cublas::result::gemm_ex(
                *self.blas.handle(),
                cublas::sys::cublasOperation_t::CUBLAS_OP_T,
                cublas::sys::cublasOperation_t::CUBLAS_OP_N,
                rows,
                tokens,
                inner,
                (&raw const one).cast(),
                weight as *const _,
                cublas::sys::cudaDataType::CUDA_R_16F,
                inner,
                x as *const _,
                cublas::sys::cudaDataType::CUDA_R_16F,
                inner,
                (&raw const zero).cast(),
                out as *mut _,
                cublas::sys::cudaDataType::CUDA_R_16F,
                rows,
                cublas::sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublas::sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(cublas_error)
    }
}

/// Memory on the card, freed when dropped. Freeing waits for the card, as cuMemFree does.
pub struct DeviceBuffer {
    pub address: u64,
    pub bytes: usize,
    context: Arc<CudaContext>,
}

impl DeviceBuffer {
    pub fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, EmbedError> {
        context.bind_to_thread().map_err(driver_error)?;
        // SAFETY: the memory is not read before it was written: weights and inputs are copied in whole, and every
        // kernel writes the activations that the next one reads.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                EmbedError::OutOfMemory(format!("{:.1} MiB more cannot be had", bytes as f64 / f64::from(1 << 20)))
            }
            _ => driver_error(error),
        })?;
        Ok(Self { address, bytes, context: context.clone() })
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        self.context.record_err(self.context.bind_to_thread());
        // SAFETY: allocated in `new`, freed here only.
        self.context.record_err(unsafe { result::free_sync(self.address) });
    }
}

/// Memory taken from the card for as long as this lives, as another program might: for checks.
pub struct Ballast(#[allow(dead_code)] Vec<DeviceBuffer>);

impl Ballast {
    /// Takes all but `leave` bytes of what is free.
    pub fn new(leave: u64) -> Result<Self, EmbedError> {
        let context = CudaContext::new(0).map_err(driver_error)?;
        let (free, _) = context.mem_get_info().map_err(driver_error)?;
        let mut left = (free as u64).saturating_sub(leave);
        let mut part = left;
        let mut taken = Vec::new();
        // What is free is not always free in one piece.
        while left > 0 && part >= 1 << 20 {
            match DeviceBuffer::new(&context, part.min(left) as usize) {
                Ok(buffer) => {
                    left -= buffer.bytes as u64;
                    taken.push(buffer);
                }
                Err(EmbedError::OutOfMemory(_)) => part /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(Self(taken))
    }
}

/// Host memory that the card copies from and to by itself; it grows as needed.
pub struct PinnedBuffer<T> {
    memory: Option<PinnedHostSlice<T>>,
    context: Arc<CudaContext>,
}

impl<T: cudarc::driver::DeviceRepr + cudarc::driver::ValidAsZeroBits> PinnedBuffer<T> {
    pub fn new(context: &Arc<CudaContext>) -> Self {
        Self { memory: None, context: context.clone() }
    }

    /// `length` numbers to write to or to copy into. Whoever calls has waited for earlier copies to end.
    pub fn slice(&mut self, length: usize) -> Result<&mut [T], EmbedError> {
        if self.memory.as_ref().is_none_or(|memory| memory.len() < length) {
            self.memory = None;
            // SAFETY: any bits are a number of T (u32, f32, f16), and each is written before it is read.
            self.memory = Some(
                unsafe { self.context.alloc_pinned_with_flags::<T>(length.next_power_of_two(), 0) }
                    .map_err(driver_error)?,
            );
        }
        match &mut self.memory {
            Some(memory) => Ok(&mut memory.as_mut_slice().map_err(driver_error)?[..length]),
            None => Err(EmbedError::Compute("pinned memory is missing".into())),
        }
    }
}

/// What a driver's error means for who waits for the vectors.
pub fn driver_error(error: DriverError) -> EmbedError {
    use CUresult as R;
    match error.0 {
        R::CUDA_ERROR_OUT_OF_MEMORY => EmbedError::OutOfMemory(error.to_string()),
        // After these the context is of no use; NVIDIA's description of each says that the process must be ended.
        R::CUDA_ERROR_ILLEGAL_ADDRESS
        | R::CUDA_ERROR_MISALIGNED_ADDRESS
        | R::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | R::CUDA_ERROR_INVALID_PC
        | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | R::CUDA_ERROR_HARDWARE_STACK_ERROR
        | R::CUDA_ERROR_LAUNCH_FAILED
        | R::CUDA_ERROR_LAUNCH_TIMEOUT
        | R::CUDA_ERROR_ECC_UNCORRECTABLE
        | R::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | R::CUDA_ERROR_DEVICE_UNAVAILABLE
        | R::CUDA_ERROR_SYSTEM_NOT_READY
        | R::CUDA_ERROR_UNKNOWN => EmbedError::DeviceLost(error.to_string()),
        _ => EmbedError::Compute(format!("CUDA: {error}")),
    }
}

/// What cuBLAS' error means for who waits for the vectors.
pub fn cublas_error(error: CublasError) -> EmbedError {
    use cublas::sys::cublasStatus_t as S;
    match error.0 {
        S::CUBLAS_STATUS_ALLOC_FAILED => EmbedError::OutOfMemory("cuBLAS could not allocate".into()),
        S::CUBLAS_STATUS_EXECUTION_FAILED | S::CUBLAS_STATUS_INTERNAL_ERROR => {
            EmbedError::DeviceLost(format!("cuBLAS: {:?}", error.0))
        }
        status => EmbedError::Compute(format!("cuBLAS: {status:?}")),
    }
}
