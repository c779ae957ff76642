//! The model's own table of token embeddings, read row by row from the weights' file: what sentences are likened by
//! where borders must cost no pass of the model. Keeps the file open and nothing in memory; must never load the table
//! whole, which for bge-m3 is a gigabyte.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use candle_core::pickle::PthTensors;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::model_files::WeightsFile;
use super::{EmbedError, TokenVectors};

/// A `[rows, columns]` tensor in a file, row after row.
#[derive(Debug)]
pub struct TokenTable {
    file: File,
    path: String,
    /// Of the first row, in bytes.
    offset: u64,
    dtype: DType,
    rows: usize,
    columns: usize,
}

/// A tensor's entry in the header of a safetensors file (<https://github.com/huggingface/safetensors#format>).
#[derive(Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// In place of a table that cannot be read row by row: the model works all the same, and who asks for rows is told why.
#[derive(Debug)]
pub struct NoTokenTable(pub String);

impl TokenVectors for NoTokenTable {
    /// # Errors
    /// [`EmbedError::Load`], always.
    fn of_tokens(&self, _ids: &[u32]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Err(EmbedError::Load(self.0.clone()))
    }
}

/// Far above any real header; the file's first eight bytes say how long it is.
const MAX_HEADER_BYTES: u64 = 100 << 20;

impl TokenTable {
    /// Finds the tensor `name` in the file.
    pub fn open(weights: &WeightsFile, name: &str) -> Result<Self, EmbedError> {
        let path = weights.path();
        let fail = |reason: String| EmbedError::Load(format!("model weights {}: '{name}': {reason}", path.display()));
        let file = File::open(path).map_err(|error| fail(error.to_string()))?;
        let (offset, dtype, shape) = match weights {
            WeightsFile::Safetensors(_) => find_in_safetensors(&file, name),
            WeightsFile::Pytorch(_) => find_in_pickle(path, name),
        }
        .map_err(fail)?;
        let [rows, columns] = shape[..] else { return Err(fail(format!("it has {} dimensions, not 2", shape.len()))) };
        Ok(Self { file, path: path.display().to_string(), offset, dtype, rows, columns })
    }
}

impl TokenVectors for TokenTable {
    /// # Errors
    /// [`EmbedError::Compute`] for an id that the table does not have, or a file that cannot be read.
    fn of_tokens(&self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let fail = |reason: String| EmbedError::Compute(format!("model weights {}: {reason}", self.path));
        let bytes = self.columns * self.dtype.size_in_bytes();
        let mut row = vec![0u8; bytes];
        ids.iter()
            .map(|&id| {
                if id as usize >= self.rows {
                    return Err(fail(format!("token id {id}, but the model knows {}", self.rows)));
                }
                let at = self.offset + u64::from(id) * bytes as u64;
                self.file.read_exact_at(&mut row, at).map_err(|error| fail(error.to_string()))?;
                let row = Tensor::from_raw_buffer(&row, self.dtype, &[self.columns], &Device::Cpu)?;
                Ok(row.to_dtype(DType::F32)?.to_vec1()?)
            })
            .collect()
    }
}

/// The tensor's place: offset in the file, type and shape.
type Place = (u64, DType, Vec<usize>);

fn find_in_safetensors(file: &File, name: &str) -> Result<Place, String> {
    let mut length = [0u8; 8];
    file.read_exact_at(&mut length, 0).map_err(|error| error.to_string())?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(format!("a header of {length} bytes"));
    }
    let mut header = vec![0u8; length as usize];
    file.read_exact_at(&mut header, 8).map_err(|error| error.to_string())?;
    let mut entries: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|error| error.to_string())?;
    let entry = entries.remove(name).ok_or("the file has no such tensor")?;
    let entry: HeaderEntry = serde_json::from_value(entry).map_err(|error| error.to_string())?;
    let dtype = match entry.dtype.as_str() {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        other => return Err(format!("numbers of type {other}")),
    };
    let bytes = entry.shape.iter().product::<usize>() as u64 * dtype.size_in_bytes() as u64;
    if entry.data_offsets[1].saturating_sub(entry.data_offsets[0]) != bytes {
        return Err("its length and its shape do not agree".into());
    }
    Ok((8 + length + entry.data_offsets[0], dtype, entry.shape))
}

/// PyTorch's file is a zip archive whose entries are stored as they are; each tensor is a view of one.
fn find_in_pickle(path: &Path, name: &str) -> Result<Place, String> {
    let tensors = PthTensors::new(path, None).map_err(|error| error.to_string())?;
    let info = tensors.tensor_infos().get(name).ok_or("the file has no such tensor")?;
    if !info.layout.is_contiguous() {
        return Err("its rows do not lie one after the other".into());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| error.to_string())?;
    let entry = archive.by_name(&info.path).map_err(|error| error.to_string())?;
    if entry.compression() != zip::CompressionMethod::Stored {
        return Err("it is compressed".into());
    }
    let start = entry.data_start().ok_or("its place in the file is not known")?;
    // candle counts the place in the entry in bytes, not in numbers.
    let offset = start + info.layout.start_offset() as u64;
    Ok((offset, info.dtype, info.layout.dims().to_vec()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write;

    use super::*;
    use crate::embed::weights::{WORDS, Weights};

    #[test]
    fn rows_are_those_of_the_tensor_in_all_precisions() {
        let directory = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..12).map(|n| n as f32 - 4.5).collect();
        let table = Tensor::from_vec(values.clone(), (4, 3), &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let path = directory.path().join("model.safetensors");
            let other = Tensor::zeros((2, 5), dtype, &Device::Cpu).unwrap();
            let tensors = HashMap::from([("a.other", other), ("words", table.to_dtype(dtype).unwrap())]);
            candle_core::safetensors::save(&tensors, &path).unwrap();
            let weights = WeightsFile::Safetensors(path);
            let found = TokenTable::open(&weights, "words").unwrap();
            assert_eq!(found.of_tokens(&[3, 0, 3]).unwrap(), [&values[9..], &values[..3], &values[9..]]);
            assert!(found.of_tokens(&[4]).unwrap_err().to_string().contains("knows 4"));
            assert!(TokenTable::open(&weights, "absent").unwrap_err().to_string().contains("no such tensor"));
        }
    }

    #[test]
    fn a_table_of_another_type_is_no_reason_not_to_load_the_model() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        let table = Tensor::zeros((4, 3), DType::F64, &Device::Cpu).unwrap();
        candle_core::safetensors::save(&HashMap::from([(WORDS, table)]), &path).unwrap();
        let weights = Weights::open(&WeightsFile::Safetensors(path)).unwrap();
        assert_eq!(weights.get_f32(WORDS).unwrap().dims(), [4, 3]);
        let error = weights.token_vectors().of_tokens(&[1]).unwrap_err().to_string();
        assert!(error.contains("numbers of type F64"), "{error}");
    }

    /// `OrderedDict(words=tensor)` as torch.save writes it: rows of three numbers, from the third number of a storage.
    const STATE_DICT: &[u8] = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x05\x00\x00\x00wordsq\x02ctorch._utils\n_rebuild_tensor_v2\nq\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq\x07K\x0etq\x08QK\x02K\x04K\x03\x86q\tK\x03K\x01\x86q\n\x89h\x00)Rq\x0btq\x0cRq\rs}q\x0eX\t\x00\x00\x00_metadataq\x0fh\x00)Rq\x10sb.";

    #[test]
    fn rows_are_found_in_pytorchs_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pytorch_model.bin");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        archive.start_file("archive/data.pkl", stored).unwrap();
        archive.write_all(STATE_DICT).unwrap();
        archive.start_file("archive/data/0", stored).unwrap();
        (0..14).for_each(|n| archive.write_all(&(n as f32).to_le_bytes()).unwrap());
        archive.finish().unwrap();
        let found = TokenTable::open(&WeightsFile::Pytorch(path), "words").unwrap();
        assert_eq!(found.of_tokens(&[3, 0]).unwrap(), [[11.0, 12.0, 13.0], [2.0, 3.0, 4.0]]);
    }
}
