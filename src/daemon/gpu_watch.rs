//! What the driver's management library (NVML) says of the GPU: means over a bench's run, and the present moment for the
//! service's status. It only reads, on a thread of its own, for a driver may hang; where there is no NVML the reason is
//! given and the caller goes on.

use crate::control::protocol::GpuStatus;

/// Means over the samples of one run. `None` where this card or driver does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GpuFigures {
    /// Percent of the time in which any kernel ran, as the driver counts it over its own short periods.
    pub utilisation_mean: Option<f64>,
    pub utilisation_max: Option<f64>,
    pub power_watts: Option<f64>,
    pub clock_mhz: Option<f64>,
}

/// One moment: utilisation in percent, power in milliwatts, clock of the multiprocessors in MHz, degrees Celsius, bytes
/// in use and in all.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
struct Sample {
    utilisation: Option<u32>,
    power_milliwatts: Option<u32>,
    clock_mhz: Option<u32>,
    celsius: Option<u32>,
    memory: Option<(u64, u64)>,
}

#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
impl Sample {
    fn status(&self, name: &str) -> GpuStatus {
        let (memory_used, memory_total) = self.memory.unwrap_or_default();
        GpuStatus {
            name: name.to_owned(),
            utilisation_percent: self.utilisation,
            memory_used,
            memory_total,
            power_watts: self.power_milliwatts.map(|milliwatts| f64::from(milliwatts) / 1e3),
            temperature_celsius: self.celsius,
        }
    }
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

pub use imp::{GpuMonitor, GpuWatch};

#[cfg(feature = "cuda")]
mod imp {
    use std::ffi::OsStr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
    use nvml_wrapper::error::NvmlError;
    use nvml_wrapper::{Device, Nvml};

    use super::{GpuFigures, GpuStatus, Sample, summary};

    /// The driver's own period is a sixth of a second to a second.
    const PERIOD: Duration = Duration::from_millis(100);

    /// Between two samples for the status, and how old one may be: a driver that hangs is not shown as it was.
    const STATUS_PERIOD: Duration = Duration::from_secs(2);
    const STALE: Duration = Duration::from_secs(15);

    /// The present moment, as a thread saw it last.
    #[derive(Default)]
    pub struct GpuMonitor {
        seen: Arc<Mutex<Option<(Instant, GpuStatus)>>>,
    }

    impl GpuMonitor {
        /// Watches nothing: there is no GPU in use.
        pub fn off() -> Self {
            Self::default()
        }

        /// Starts watching the GPU of this name, until `stopping`. The thread is left behind where the driver hangs.
        pub fn start(name: &str, stopping: &Arc<AtomicBool>) -> Self {
            let monitor = Self::default();
            let (seen, stopping, name) = (monitor.seen.clone(), stopping.clone(), name.to_owned());
            let started = std::thread::Builder::new().name("gpu-status".into()).spawn(move || {
                let watched = nvml().and_then(|nvml| find(&nvml, &name).map(|index| (nvml, index)));
                let (nvml, index) = match watched {
                    Ok(found) => found,
                    Err(error) => {
                        tracing::debug!("the status shows nothing of the GPU's load: {error}");
                        return;
                    }
                };
                let Ok(device) = nvml.device_by_index(index) else { return };
                while !stopping.load(Ordering::Relaxed) {
                    let status = sample(&device).status(&name);
                    *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), status));
                    let until = Instant::now() + STATUS_PERIOD;
                    while Instant::now() < until && !stopping.load(Ordering::Relaxed) {
                        std::thread::sleep(PERIOD);
                    }
                }
            });
            if let Err(error) = started {
                tracing::debug!("the thread that watches the GPU cannot be started: {error}");
            }
            monitor
        }

        pub fn status(&self) -> Option<GpuStatus> {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.as_ref().filter(|(at, _)| at.elapsed() < STALE).map(|(_, status)| status.clone())
        }
    }

    fn nvml() -> Result<Nvml, NvmlError> {
        // The name without a version is a link that only development packages bring.
        Nvml::builder().lib_path(OsStr::new("libnvidia-ml.so.1")).init()
    }

    /// A thread that takes samples until it is asked for them.
    pub struct GpuWatch {
        stop: mpsc::Sender<()>,
        thread: JoinHandle<Vec<Sample>>,
    }

    impl GpuWatch {
        /// Starts watching the GPU of this name. The error says what is missing.
        pub fn start(name: &str) -> Result<Self, String> {
            let nvml = nvml().map_err(|error| format!("NVML is not available: {error}"))?;
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
            celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            memory: device.memory_info().ok().map(|memory| (memory.used, memory.total)),
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod imp {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::{GpuFigures, GpuStatus};

    /// This build has no CUDA support: there is nothing to show.
    pub struct GpuMonitor;

    impl GpuMonitor {
        pub fn off() -> Self {
            Self
        }

        pub fn start(_: &str, _: &Arc<AtomicBool>) -> Self {
            Self
        }

        pub fn status(&self) -> Option<GpuStatus> {
            None
        }
    }

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
        let sample = |utilisation, power_milliwatts| Sample { utilisation, power_milliwatts, ..Sample::default() };
        let figures = summary(&[sample(Some(90), Some(60_000)), sample(None, Some(70_000)), sample(Some(100), None)]);
        let expected = GpuFigures {
            utilisation_mean: Some(95.0),
            utilisation_max: Some(100.0),
            power_watts: Some(65.0),
            clock_mhz: None,
        };
        assert_eq!(figures, expected);
        assert_eq!(summary(&[]), GpuFigures::default());
        let now = Sample { memory: Some((3, 12)), ..sample(Some(90), Some(60_500)) }.status("RTX");
        let expected = GpuStatus {
            name: "RTX".into(),
            utilisation_percent: Some(90),
            memory_used: 3,
            memory_total: 12,
            power_watts: Some(60.5),
            temperature_celsius: None,
        };
        assert_eq!(now, expected);
    }
}
