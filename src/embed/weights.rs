//! A model's weights in their files: safetensors (memory-mapped) or PyTorch's pickle, read tensor by tensor.

use std::collections::HashSet;
use std::sync::Arc;

use candle_core::pickle::PthTensors;
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};

use super::model_files::WeightsFile;
use super::token_table::{NoTokenTable, TokenTable};
use super::{EmbedError, TokenVectors};

/// The table of token embeddings.
pub const WORDS: &str = "embeddings.word_embeddings.weight";

enum File {
    Safetensors(MmapedSafetensors),
    Pytorch(PthTensors),
}

/// Named tensors of a model, whatever prefix its files give the names. Nothing is kept in memory between two calls.
pub struct Weights {
    file: File,
    path: String,
    source: WeightsFile,
    names: HashSet<String>,
    prefix: String,
}

impl Weights {
    /// Opens the file and finds the prefix under which the encoder's tensors stand (`""`, `bert.`, `roberta.`, ...).
    pub fn open(source: &WeightsFile) -> Result<Self, EmbedError> {
        let path = source.path().display().to_string();
        let fail = |reason: String| EmbedError::Load(format!("model weights {path}: {reason}"));
        let (file, names): (File, HashSet<String>) = match source {
            WeightsFile::Safetensors(path) => {
                // SAFETY: the map is valid while nobody truncates or rewrites the file during the load. A model's file
                // is replaced by renaming, if ever (the hub's cache never changes a blob), and one that shrinks under
                // the map ends the load with SIGBUS before any vector was made.
                let map = unsafe { MmapedSafetensors::new(path) }.map_err(|error| fail(error.to_string()))?;
                let names = map.tensors().into_iter().map(|(name, _)| name).collect();
                (File::Safetensors(map), names)
            }
            WeightsFile::Pytorch(path) => {
                let tensors = PthTensors::new(path, None).map_err(|error| fail(error.to_string()))?;
                let names = tensors.tensor_infos().keys().cloned().collect();
                (File::Pytorch(tensors), names)
            }
        };
        let Some(prefix) = names.iter().find_map(|name| name.strip_suffix(WORDS).map(str::to_owned)) else {
            return Err(fail(format!("there is no tensor named '{WORDS}'")));
        };
        Ok(Self { file, path, source: source.clone(), names, prefix })
    }

    /// The tensor in the file's own precision, on the host.
    pub fn get(&self, name: &str) -> Result<Tensor, EmbedError> {
        let name = format!("{}{name}", self.prefix);
        let fail = |reason: String| EmbedError::Load(format!("model weights {}: {reason}", self.path));
        if !self.names.contains(&name) {
            return Err(fail(format!("there is no tensor named '{name}'")));
        }
        let tensor = match &self.file {
            File::Safetensors(map) => map.load(&name, &Device::Cpu),
            File::Pytorch(tensors) => match tensors.get(&name) {
                Ok(Some(tensor)) => Ok(tensor),
                Ok(None) => return Err(fail(format!("there is no tensor named '{name}'"))),
                Err(error) => Err(error),
            },
        };
        tensor.and_then(|tensor| tensor.contiguous()).map_err(|error| fail(format!("'{name}': {error}")))
    }

    /// The table of token embeddings, left in its file.
    pub fn token_vectors(&self) -> Arc<dyn TokenVectors> {
        match TokenTable::open(&self.source, &format!("{}{WORDS}", self.prefix)) {
            Ok(table) => Arc::new(table),
            Err(error) => Arc::new(NoTokenTable(error.to_string())),
        }
    }

    /// The tensor in f32, on the host, for the foldings.
    pub fn get_f32(&self, name: &str) -> Result<Tensor, EmbedError> {
        Ok(self.get(name)?.to_dtype(DType::F32)?)
    }
}
