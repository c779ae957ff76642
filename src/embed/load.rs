//! Loads a model on the device that the settings ask for, and says in one line which and why.

use std::path::PathBuf;

use super::device::{self, CudaFacts, DeviceRequest, NoCuda};
use super::{CpuEmbedder, EmbedError, Embedder, ModelFiles};

/// How the embedding is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSettings {
    pub request: DeviceRequest,
    /// CPU threads; 0: all cores.
    pub threads: usize,
    /// Tokens of a batch; 0: chosen for the device.
    pub batch_tokens: usize,
    /// Bytes of GPU memory that weights and workspace may take together; 0: what is free, less 1 GB.
    pub memory: u64,
    /// A folder with cuBLAS, where it is not among the system's libraries; empty: it is.
    pub cuda_libraries: PathBuf,
}

/// The GPU that would be used.
pub fn probe(settings: &DeviceSettings) -> Result<CudaFacts, NoCuda> {
    #[cfg(feature = "cuda")]
    return super::cuda::probe(&settings.cuda_libraries);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = settings;
        Err(NoCuda::NotBuilt)
    }
}

/// Loads tokenizer and weights. Called once in a process' life.
pub fn load(files: ModelFiles, settings: &DeviceSettings) -> Result<Box<dyn Embedder>, EmbedError> {
    let probed = match settings.request {
        // Not even looked at: a driver that hangs must not matter to who does not want it.
        DeviceRequest::Cpu => Err(NoCuda::NotLookedFor),
        DeviceRequest::Auto | DeviceRequest::Cuda => probe(settings),
    };
    let choice = device::choose(settings.request, &probed)?;
    match (choice.cuda, probed) {
        #[cfg(feature = "cuda")]
        (true, Ok(facts)) => {
            tracing::info!("embedding on {} ({}); {}", facts.name, facts.memory_line(), choice.reason);
            Ok(Box::new(super::cuda::CudaEmbedder::load(files, settings, &facts)?))
        }
        _ => {
            tracing::info!("embedding on the CPU; {}", choice.reason);
            Ok(Box::new(CpuEmbedder::load(files, settings.threads, settings.batch_tokens)?))
        }
    }
}
