//! Where the embedding runs, and why: the choice between CUDA and the CPU (pure), and what a device says of itself.

use serde::{Deserialize, Serialize};

use super::EmbedError;

/// What `embedding.device` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceRequest {
    Auto,
    Cuda,
    Cpu,
}

impl DeviceRequest {
    pub fn from_name(name: &str) -> Result<Self, EmbedError> {
        match name {
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda),
            "cpu" => Ok(Self::Cpu),
            other => Err(EmbedError::Load(format!("embedding.device '{other}' is none of auto, cuda, cpu"))),
        }
    }
}

/// Why there is no GPU to compute on. Each reason names what is missing and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCuda {
    #[error("this build has no CUDA support (build with --features cuda)")]
    NotBuilt,
    #[error("there is no NVIDIA driver (libcuda.so.1 cannot be loaded)")]
    NoDriver,
    #[error(
        "the NVIDIA driver speaks CUDA {}.{}, this build needs {}.{}: install a newer driver",
        driver / 1000, driver % 1000 / 10, needed / 1000, needed % 1000 / 10
    )]
    OldDriver { driver: i32, needed: i32 },
    #[error("the NVIDIA driver shows no GPU ({0})")]
    NoDevice(String),
    #[error("{name} has compute capability {major}.{minor}, 8.0 or newer (Ampere) is needed")]
    OldDevice { name: String, major: i32, minor: i32 },
    #[error(
        "cuBLAS cannot be loaded (libcublas.so.13 and libcublasLt.so.13): install NVIDIA's package libcublas-13-0, or \
         set embedding.cuda_libraries to the folder that holds them"
    )]
    NoCublas,
    #[error("it was not looked for")]
    NotLookedFor,
}

/// A usable GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CudaFacts {
    pub name: String,
    /// Compute capability.
    pub major: i32,
    pub minor: i32,
    /// Bytes on the card, and bytes that are free now.
    pub total: u64,
    pub free: u64,
    /// The CUDA version that the driver speaks, as it says it: 13000 is 13.0.
    pub driver: i32,
}

impl CudaFacts {
    /// `11.0 of 12.0 GiB free, compute capability 8.6, driver for CUDA 13.0`.
    pub fn memory_line(&self) -> String {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        format!(
            "{:.1} of {:.1} GiB free, compute capability {}.{}, driver for CUDA {}.{}",
            gib(self.free),
            gib(self.total),
            self.major,
            self.minor,
            self.driver / 1000,
            self.driver % 1000 / 10
        )
    }
}

/// The choice, and the sentence that explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub cuda: bool,
    pub reason: String,
}

/// Chooses the device.
///
/// # Errors
/// `cuda` was asked for and cannot be had.
pub fn choose(request: DeviceRequest, probe: &Result<CudaFacts, NoCuda>) -> Result<Choice, EmbedError> {
    match (request, probe) {
        (DeviceRequest::Cpu, _) => Ok(Choice { cuda: false, reason: "embedding.device is \"cpu\"".into() }),
        (DeviceRequest::Cuda, Ok(_)) => Ok(Choice { cuda: true, reason: "embedding.device is \"cuda\"".into() }),
        (DeviceRequest::Auto, Ok(_)) => Ok(Choice { cuda: true, reason: "auto found a usable GPU".into() }),
        (DeviceRequest::Auto, Err(missing)) => Ok(Choice { cuda: false, reason: format!("auto: {missing}") }),
        (DeviceRequest::Cuda, Err(missing)) => {
            let message = format!("embedding.device is \"cuda\", but {missing}; \"auto\" would use the CPU");
            // A driver may be loaded late in the boot; the others stay as they are until a person acts.
            Err(match missing {
                NoCuda::NoDriver | NoCuda::NoDevice(_) => EmbedError::NoDevice(message),
                _ => EmbedError::Load(message),
            })
        }
    }
}

/// What the device that holds the model says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// `cuda` or `cpu`.
    pub kind: String,
    pub name: String,
    /// `f16` or `f32`: weights and activations.
    pub precision: String,
    pub memory: Option<DeviceMemory>,
    /// How often the token budget of a batch was halved for want of memory.
    pub budget_halvings: u64,
}

/// A GPU's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    pub total: u64,
    pub free: u64,
    /// This process' weights.
    pub weights: u64,
    /// This process' workspace: activations, inputs and cuBLAS.
    pub workspace: u64,
    /// The most that weights and workspace ever were together.
    pub peak: u64,
}

impl DeviceReport {
    pub fn cpu(threads: usize) -> Self {
        Self {
            kind: "cpu".into(),
            name: format!("{threads} threads"),
            precision: "f32".into(),
            memory: None,
            budget_halvings: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Result<CudaFacts, NoCuda> {
        Ok(CudaFacts {
            name: "NVIDIA RTX A2000 12GB".into(),
            major: 8,
            minor: 6,
            total: 12 << 30,
            free: 11 << 30,
            driver: 13000,
        })
    }

    #[test]
    fn auto_takes_a_gpu_where_there_is_one_and_says_why_not_elsewhere() {
        assert!(choose(DeviceRequest::Auto, &card()).unwrap().cuda);
        let choice = choose(DeviceRequest::Auto, &Err(NoCuda::NoDriver)).unwrap();
        assert!(!choice.cuda);
        assert_eq!(choice.reason, "auto: there is no NVIDIA driver (libcuda.so.1 cannot be loaded)");
        assert!(!choose(DeviceRequest::Cpu, &card()).unwrap().cuda);
    }

    #[test]
    fn cuda_without_a_usable_gpu_is_an_error_that_names_what_is_missing() {
        let old = NoCuda::OldDevice { name: "GeForce GTX 1080".into(), major: 6, minor: 1 };
        let error = choose(DeviceRequest::Cuda, &Err(old)).unwrap_err().to_string();
        assert!(error.contains("compute capability 6.1, 8.0 or newer"), "{error}");
        let old = NoCuda::OldDriver { driver: 12080, needed: 13000 };
        let error = choose(DeviceRequest::Cuda, &Err(old)).unwrap_err().to_string();
        assert!(error.contains("speaks CUDA 12.8, this build needs 13.0: install a newer driver"), "{error}");
        assert!(choose(DeviceRequest::Cuda, &card()).unwrap().cuda);
    }
}
