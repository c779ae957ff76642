//! A model's files: where they are, whether they are complete, and what they say (shape, pooling, limit).
//!
//! A model is a directory in the hub's layout, or is fetched from the Hugging Face hub by id. Nothing here computes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_transformers::models::bert::{Config, HiddenAct, PositionEmbeddingType};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::backend::Pooling;
use super::{EmbedError, ModelInfo};

/// A model by the names the contract and the hub know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// The contract's `embedding_model_id`.
    pub id: String,
    /// The contract's `embedding_model_name`.
    pub name: String,
    /// The hub's repository, where one is known.
    pub repository: Option<String>,
}

impl ModelSpec {
    /// The model that `embedding.model` names. A name with a slash is a hub repository.
    pub fn from_name(name: &str) -> Self {
        let known = |id: &str, name: &str, repository: &str| Self {
            id: id.into(),
            name: name.into(),
            repository: Some(repository.into()),
        };
        match name {
            "bge-m3" | "BAAI/bge-m3" => known("bge-m3", "BAAI/bge-m3", "BAAI/bge-m3"),
            "bge-large" | "BAAI/bge-large-en-v1.5" => {
                known("bge-large", "BAAI/bge-large-en-v1.5", "BAAI/bge-large-en-v1.5")
            }
            "minilm" | "all-MiniLM-L6-v2" | "sentence-transformers/all-MiniLM-L6-v2" => {
                known("minilm", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
            }
            other => {
                Self { id: other.into(), name: other.into(), repository: other.contains('/').then(|| other.to_owned()) }
            }
        }
    }

    /// The size of a well-known model's vectors.
    fn known_dimension(&self) -> Option<usize> {
        match self.id.as_str() {
            "bge-m3" | "bge-large" => Some(1024),
            "minilm" => Some(384),
            _ => None,
        }
    }

    /// Tokens that a well-known model takes; of others only their files tell.
    pub fn known_limit(&self) -> Option<usize> {
        match self.id.as_str() {
            "bge-m3" => Some(8192),
            "bge-large" => Some(512),
            "minilm" => Some(256),
            _ => None,
        }
    }

    /// Whether the query side's tools know this id.
    pub fn is_known_to_readers(&self) -> bool {
        matches!(self.id.as_str(), "bge-m3" | "bge-large" | "minilm")
    }
}

/// A complete model directory and what its files say.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    pub spec: ModelSpec,
    pub config: Config,
    pub pooling: Pooling,
    /// Added to a token's index to get its row in the position table.
    pub position_offset: u32,
    /// Tokens a text may have, special tokens included.
    pub max_tokens: usize,
    pub tokenizer: PathBuf,
    pub weights: WeightsFile,
    /// Changes when the vectors would.
    pub fingerprint: String,
}

/// The file that holds the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightsFile {
    Safetensors(PathBuf),
    /// PyTorch's pickle, which is all that bge-m3's repository has.
    Pytorch(PathBuf),
}

impl WeightsFile {
    pub fn path(&self) -> &Path {
        match self {
            WeightsFile::Safetensors(path) | WeightsFile::Pytorch(path) => path,
        }
    }
}

#[derive(Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
}

#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

impl ModelFiles {
    /// Reads a directory in the hub's layout. The error names the file that is missing or wrong.
    pub fn open(spec: ModelSpec, directory: &Path) -> Result<Self, EmbedError> {
        if !directory.is_dir() {
            return Err(EmbedError::Load(format!(
                "model directory {} does not exist; set embedding.model_path to a directory with config.json, tokenizer.json and model.safetensors",
                directory.display()
            )));
        }
        let config_path = directory.join("config.json");
        let config: Config = read_json(&config_path)?;
        let model_type = config.model_type.clone().unwrap_or_default();
        let position_offset = match model_type.as_str() {
            "bert" => 0,
            "xlm-roberta" | "roberta" => config.pad_token_id as u32 + 1,
            other => {
                return Err(EmbedError::Load(format!(
                    "{}: model_type '{other}' is not supported; bert and xlm-roberta are",
                    config_path.display()
                )));
            }
        };
        if config.hidden_act != HiddenAct::Gelu || config.position_embedding_type != PositionEmbeddingType::Absolute {
            return Err(EmbedError::Load(format!(
                "{}: only hidden_act 'gelu' and absolute positions are supported",
                config_path.display()
            )));
        }
        if let Some(expected) = spec.known_dimension()
            && expected != config.hidden_size
        {
            return Err(EmbedError::Load(format!(
                "{} holds a model of {} dimensions, but {} has {expected}: set embedding.model to the model's own name",
                directory.display(),
                config.hidden_size,
                spec.name
            )));
        }
        let tokenizer = require(directory.join("tokenizer.json"))?;
        let weights = match (directory.join("model.safetensors"), directory.join("pytorch_model.bin")) {
            (safetensors, _) if safetensors.is_file() => WeightsFile::Safetensors(safetensors),
            (_, pytorch) if pytorch.is_file() => WeightsFile::Pytorch(pytorch),
            (safetensors, _) => {
                return Err(EmbedError::Load(format!(
                    "model file {} is missing, and so is pytorch_model.bin",
                    safetensors.display()
                )));
            }
        };
        let pooling = read_pooling(directory)?;
        let max_tokens = read_max_tokens(directory, &config, position_offset)?;
        let fingerprint = fingerprint(&config_path, &tokenizer, weights.path(), pooling, max_tokens)
            .map_err(|error| EmbedError::Load(format!("model directory {}: {error}", directory.display())))?;
        Ok(Self { spec, config, pooling, position_offset, max_tokens, tokenizer, weights, fingerprint })
    }

    /// What is known of the model once it is loaded on `device`.
    pub fn model_info(&self, device: String) -> ModelInfo {
        ModelInfo {
            id: self.spec.id.clone(),
            name: self.spec.name.clone(),
            dimension: self.config.hidden_size,
            max_tokens: self.max_tokens,
            fingerprint: self.fingerprint.clone(),
            device,
        }
    }

    /// Fetches a model from the Hugging Face hub into `cache` (the hub's own cache layout) and opens it. `progress` is told
    /// of a file's name, how many bytes of it are here, and of how many.
    pub fn fetch(spec: ModelSpec, cache: &Path, progress: &dyn Fn(&str, u64, u64)) -> Result<Self, EmbedError> {
        let Some(repository) = spec.repository.clone() else {
            return Err(EmbedError::Load(format!(
                "model '{}' is not known; use bge-m3, bge-large, minilm, a hub repository (owner/name), or set embedding.model_path",
                spec.id
            )));
        };
        let fail = |file: &str, error: hf_hub::api::sync::ApiError| {
            EmbedError::Fetch(format!(
                "cannot fetch {file} of {repository} from the Hugging Face hub: {error}; where the hub cannot be reached, set embedding.model_path to a directory with the model's files"
            ))
        };
        let api = hf_hub::api::sync::ApiBuilder::from_env()
            .with_cache_dir(cache.to_owned())
            .with_progress(false)
            .build()
            .map_err(|error| fail("the index", error))?;
        let model = api.model(repository.clone());
        let cached = hf_hub::Cache::new(cache.to_owned()).model(repository.clone());
        let get = |file: &str| match cached.get(file) {
            Some(path) => Ok(path),
            None => model.download_with_progress(file, Fetching { progress, file: String::new(), done: 0, total: 0 }),
        };
        let config = get("config.json").map_err(|error| fail("config.json", error))?;
        get("tokenizer.json").map_err(|error| fail("tokenizer.json", error))?;
        // Absent in some repositories, and then `open` has its defaults. A time-out must not look like an absence: the
        // wrong pooling would fill a collection with vectors of another kind.
        let absent = |error: &hf_hub::api::sync::ApiError| error.to_string().contains("404");
        for optional in ["1_Pooling/config.json", "sentence_bert_config.json"] {
            match get(optional) {
                Err(error) if !absent(&error) => return Err(fail(optional, error)),
                _ => {}
            }
        }
        match get("model.safetensors") {
            Ok(_) => {}
            Err(error) if absent(&error) => {
                get("pytorch_model.bin").map_err(|error| fail("pytorch_model.bin", error))?;
            }
            Err(error) => return Err(fail("model.safetensors", error)),
        }
        let directory = config.parent().unwrap_or(cache).to_owned();
        Self::open(spec, &directory)
    }
}

/// Passes the progress of a download on.
struct Fetching<'a> {
    progress: &'a dyn Fn(&str, u64, u64),
    file: String,
    done: u64,
    total: u64,
}

impl hf_hub::api::Progress for Fetching<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        (self.file, self.done, self.total) = (filename.to_owned(), 0, size as u64);
        (self.progress)(&self.file, 0, self.total);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(&self.file, self.done, self.total);
    }

    fn finish(&mut self) {
        (self.progress)(&self.file, self.total, self.total);
    }
}

fn read_pooling(directory: &Path) -> Result<Pooling, EmbedError> {
    let path = directory.join("1_Pooling").join("config.json");
    if !path.exists() {
        return Ok(Pooling::Mean);
    }
    let config: PoolingConfig = read_json(&path)?;
    match (config.pooling_mode_cls_token, config.pooling_mode_mean_tokens) {
        (true, false) => Ok(Pooling::Cls),
        (false, true) => Ok(Pooling::Mean),
        _ => Err(EmbedError::Load(format!("{}: only CLS or mean pooling is supported", path.display()))),
    }
}

/// The smaller of what the position table and sentence-transformers say.
fn read_max_tokens(directory: &Path, config: &Config, position_offset: u32) -> Result<usize, EmbedError> {
    let mut limit = config.max_position_embeddings.saturating_sub(position_offset as usize);
    let path = directory.join("sentence_bert_config.json");
    if path.exists() {
        let sentence: SentenceConfig = read_json(&path)?;
        limit = sentence.max_seq_length.map_or(limit, |max| max.min(limit));
    }
    if limit < 8 {
        return Err(EmbedError::Load(format!("{}: a limit of {limit} tokens is not usable", directory.display())));
    }
    Ok(limit)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, EmbedError> {
    let text = std::fs::read_to_string(require(path.to_owned())?)
        .map_err(|error| EmbedError::Load(format!("model file {}: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| EmbedError::Load(format!("model file {}: {error}", path.display())))
}

fn require(path: PathBuf) -> Result<PathBuf, EmbedError> {
    if path.is_file() { Ok(path) } else { Err(EmbedError::Load(format!("model file {} is missing", path.display()))) }
}

/// SHA-256 over the small files whole, and over the weights' size and 64 samples of 64 KiB: reading all of 2 GB at
/// every start would cost seconds, and weights that differ at all differ nearly everywhere.
fn fingerprint(
    config: &Path,
    tokenizer: &Path,
    weights: &Path,
    pooling: Pooling,
    max_tokens: usize,
) -> std::io::Result<String> {
    const SAMPLES: u64 = 64;
    const SAMPLE_BYTES: u64 = 64 << 10;
    let mut hasher = Sha256::new();
    hasher.update(std::fs::read(config)?);
    hasher.update(std::fs::read(tokenizer)?);
    hasher.update(format!("{pooling:?} {max_tokens}"));
    let mut file = File::open(weights)?;
    let size = file.metadata()?.len();
    hasher.update(size.to_le_bytes());
    for sample in 0..SAMPLES {
        file.seek(SeekFrom::Start(size.saturating_sub(SAMPLE_BYTES) / (SAMPLES - 1) * sample))?;
        let mut bytes = Vec::with_capacity(SAMPLE_BYTES as usize);
        (&mut file).take(SAMPLE_BYTES).read_to_end(&mut bytes)?;
        hasher.update(&bytes);
    }
    Ok(hasher.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_directory_is_named_with_the_missing_file() {
        let directory = tempfile::tempdir().unwrap();
        let spec = ModelSpec::from_name("minilm");
        let error = ModelFiles::open(spec.clone(), &directory.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("does not exist"), "{error}");
        let error = ModelFiles::open(spec.clone(), directory.path()).unwrap_err().to_string();
        assert!(error.contains("config.json is missing"), "{error}");
        std::fs::write(directory.path().join("config.json"), "{\"hidden_size\": 3").unwrap();
        let error = ModelFiles::open(spec, directory.path()).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
    }

    #[test]
    fn contract_ids_are_known() {
        assert_eq!(ModelSpec::from_name("BAAI/bge-m3").id, "bge-m3");
        assert_eq!(ModelSpec::from_name("minilm").name, "all-MiniLM-L6-v2");
        assert!(!ModelSpec::from_name("me5-small-xlmr").is_known_to_readers());
    }
}
