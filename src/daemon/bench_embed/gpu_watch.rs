//! What the driver's management library (NVML) says of the GPU while the bench runs. It only reads; where there is no
//! NVML the reason is given and the bench goes on.

/// Means over the samples of one run. `None` where this card or driver does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GpuFigures {
    /// Percent of the time in which any kernel ran, as the driver counts it over its own short periods.
    pub utilisation_mean: Option<f64>,
    pub utilisation_max: Option<f64>,
    pub power_watts: Option<f64>,
    pub clock_mhz: Option<f64>,
}

/// One moment: utilisation in percent, power in milliwatts, clock of the multiprocessors in MHz.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
struct Sample {
    utilisation: Option<u32>,
    power_milliwatts: Option<u32>,
    clock_mhz: Option<u32>,
}

#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
fn summary(samples: &[Sample]) -> GpuFigures {
    let of = |get: fn(&Sample) -> Option<u32>| samples.iter().filter_map(get).map(f64::from).collect::<Vec<f64>>();
    let mean = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let utilisation = of(|sample| sample.utilisation);
    GpuFigures {
        utilisation_mean: mean(&utilisation),
        utilisation_max: utilisation.iter().copied().reduce(f64::max),
        power_watts: mean(&of(|sample| sample.power_milliwatts)).map(|milliwatts| milliwatts / 1e3),
        clock_mhz: mean(&of(|sample| sample.clock_mhz)),
    }
}

pub use imp::GpuWatch;

#[cfg(feature = "cuda")]
mod imp {
    use std::ffi::OsStr;
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use nvml_wrapper::enum_wrappers::device::Clock;
    use nvml_wrapper::error::NvmlError;
    use nvml_wrapper::{Device, Nvml};

    use super::{GpuFigures, Sample, summary};

    /// The driver's own period is a sixth of a second to a second.
    const PERIOD: Duration = Duration::from_millis(100);

    /// A thread that takes samples until it is asked for them.
    pub struct GpuWatch {
        stop: mpsc::Sender<()>,
        thread: JoinHandle<Vec<Sample>>,
    }

    impl GpuWatch {
        /// Starts watching the GPU of this name. The error says what is missing.
        pub fn start(name: &str) -> Result<Self, String> {
            // The name without a version is a link that only development packages bring.
            let nvml = Nvml::builder()
                .lib_path(OsStr::new("libnvidia-ml.so.1"))
                .init()
                .map_err(|error| format!("NVML is not available: {error}"))?;
            let index = find(&nvml, name).map_err(|error| format!("NVML does not show the GPU: {error}"))?;
            let (stop, stopped) = mpsc::channel();
            let thread = std::thread::Builder::new()
                .name("gpu-watch".into())
                .spawn(move || {
                    let mut samples = Vec::new();
                    let Ok(device) = nvml.device_by_index(index) else { return samples };
                    while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                        samples.push(sample(&device));
                    }
                    // What the driver counted of the run's end; of a short run, all there is.
                    samples.push(sample(&device));
                    samples
                })
                .map_err(|error| format!("the thread that watches the GPU cannot be started: {error}"))?;
            Ok(Self { stop, thread })
        }

        pub fn finish(self) -> GpuFigures {
            drop(self.stop);
            summary(&self.thread.join().unwrap_or_default())
        }
    }

    /// CUDA numbers the visible devices, NVML all of them: the one that shows this process, else the first of the name.
    /// (In a container NVML shows no processes, or others' numbers for them.)
    fn find(nvml: &Nvml, name: &str) -> Result<u32, NvmlError> {
        let mut named = None;
        for index in 0..nvml.device_count()? {
            let device = nvml.device_by_index(index)?;
            let processes = device.running_compute_processes().unwrap_or_default();
            if processes.iter().any(|process| process.pid == std::process::id()) {
                return Ok(index);
            }
            if named.is_none() && device.name().is_ok_and(|found| found == name) {
                named = Some(index);
            }
        }
        named.ok_or(NvmlError::NotFound)
    }

    fn sample(device: &Device<'_>) -> Sample {
        Sample {
            utilisation: device.utilization_rates().ok().map(|rates| rates.gpu),
            power_milliwatts: device.power_usage().ok(),
            clock_mhz: device.clock_info(Clock::SM).ok(),
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod imp {
    use super::GpuFigures;

    /// Never made: this build has no CUDA support.
    pub struct GpuWatch(std::convert::Infallible);

    impl GpuWatch {
        pub fn start(_: &str) -> Result<Self, String> {
            Err("this build has no CUDA support".into())
        }

        pub fn finish(self) -> GpuFigures {
            match self.0 {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_means_and_what_is_not_told_stays_open() {
        let sample = |utilisation, power_milliwatts| Sample { utilisation, power_milliwatts, clock_mhz: None };
        let figures = summary(&[sample(Some(90), Some(60_000)), sample(None, Some(70_000)), sample(Some(100), None)]);
        let expected = GpuFigures {
            utilisation_mean: Some(95.0),
            utilisation_max: Some(100.0),
            power_watts: Some(65.0),
            clock_mhz: None,
        };
        assert_eq!(figures, expected);
        assert_eq!(summary(&[]), GpuFigures::default());
    }
}
