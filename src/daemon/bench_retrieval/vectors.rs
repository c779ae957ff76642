//! Each text's vector, reckoned once: methods share most of their texts. A vector remembers what it took, so that a method
//! that gets it for nothing is charged for it all the same.
//!
//! Must never hand out a vector of another model: the file of a run before carries the model's fingerprint in its name.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::Path;

use nix::sys::resource::UsageWho;
use sha2::{Digest, Sha256};

use crate::daemon::DaemonError;
use crate::daemon::bench::cpu_seconds;
use crate::embed::{EmbedError, EmbedderHandle, Priority};

type Key = [u8; 32];

/// A vector and the CPU seconds it took when it was reckoned.
struct Known {
    vector: Vec<f32>,
    cpu_seconds: f32,
}

/// All vectors so far.
pub struct Vectors<'a> {
    embedder: &'a EmbedderHandle,
    known: HashMap<Key, Known>,
    /// Where new ones are appended.
    file: Option<File>,
    /// CPU seconds that went by in here.
    spent: f64,
}

impl<'a> Vectors<'a> {
    /// With `cache`, takes what earlier runs with this model left in that folder, and leaves what it adds.
    pub fn new(embedder: &'a EmbedderHandle, cache: Option<&Path>) -> Result<Self, DaemonError> {
        let mut vectors = Self { embedder, known: HashMap::new(), file: None, spent: 0.0 };
        if let Some(directory) = cache {
            let failed = |path: &Path| DaemonError::io(format!("the vectors' cache {}", path.display()));
            std::fs::create_dir_all(directory).map_err(failed(directory))?;
            let path = directory.join(format!("{}.vectors", embedder.info().fingerprint));
            let file = OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(failed(&path))?;
            let whole = vectors.read(&file).map_err(failed(&path))?;
            // A run that was killed may have left half a record; one that goes on leaves whole ones.
            let length = file.metadata().map_err(failed(&path))?.len();
            if (length - whole) % vectors.record_bytes() as u64 != 0 {
                file.set_len(whole).map_err(failed(&path))?;
            }
            vectors.file = Some(file);
        }
        Ok(vectors)
    }

    /// Takes the records of `file`: the text's SHA-256, then f32 in little-endian: the CPU seconds, the vector. Says where
    /// the last whole one ends.
    fn read(&mut self, file: &File) -> std::io::Result<u64> {
        let mut record = vec![0u8; self.record_bytes()];
        let mut reader = BufReader::new(file);
        let mut whole = 0;
        loop {
            match reader.read_exact(&mut record) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(whole),
                Err(error) => return Err(error),
            }
            let (key, numbers) = record.split_at(32);
            let mut numbers = numbers.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            let cpu_seconds = numbers.next().unwrap_or_default();
            let mut owned = Key::default();
            owned.copy_from_slice(key);
            self.known.insert(owned, Known { vector: numbers.collect(), cpu_seconds });
            whole += record.len() as u64;
        }
    }

    fn record_bytes(&self) -> usize {
        size_of::<Key>() + 4 * (1 + self.embedder.info().dimension)
    }

    /// A unit vector for each text, and what all of them took together when they were reckoned, in CPU seconds.
    pub fn embed(&mut self, texts: &[&str]) -> Result<(Vec<Vec<f32>>, f64), EmbedError> {
        let keys: Vec<Key> = texts.iter().map(|text| Sha256::digest(text.as_bytes()).into()).collect();
        let before = cpu_seconds(UsageWho::RUSAGE_SELF);
        let mut new: Vec<(Key, &str)> =
            keys.iter().copied().zip(texts.iter().copied()).filter(|(key, _)| !self.known.contains_key(key)).collect();
        new.sort_unstable();
        new.dedup_by_key(|(key, _)| *key);
        if !new.is_empty() {
            let new_texts: Vec<&str> = new.iter().map(|(_, text)| *text).collect();
            let vectors = self.embedder.embed(&new_texts, Priority::Bulk)?;
            let spent = cpu_seconds(UsageWho::RUSAGE_SELF) - before;
            let bytes: usize = new_texts.iter().map(|text| text.len()).sum();
            for ((key, text), vector) in new.into_iter().zip(vectors) {
                let cpu_seconds = (spent * text.len() as f64 / bytes.max(1) as f64) as f32;
                self.keep(key, Known { vector, cpu_seconds })?;
            }
        }
        self.spent += cpu_seconds(UsageWho::RUSAGE_SELF) - before;
        let known: Vec<&Known> = keys.iter().filter_map(|key| self.known.get(key)).collect();
        let took = known.iter().map(|known| f64::from(known.cpu_seconds)).sum();
        Ok((known.iter().map(|known| known.vector.clone()).collect(), took))
    }

    /// The model's embeddings of its vocabulary: nothing to remember.
    pub fn of_tokens(&self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embedder.token_vectors().of_tokens(ids)
    }

    fn keep(&mut self, key: Key, known: Known) -> Result<(), EmbedError> {
        if let Some(file) = &mut self.file {
            let numbers = std::iter::once(&known.cpu_seconds).chain(&known.vector);
            let record: Vec<u8> = key.into_iter().chain(numbers.flat_map(|number| number.to_le_bytes())).collect();
            file.write_all(&record)
                .map_err(|error| EmbedError::Compute(format!("the vectors' cache cannot be written: {error}")))?;
        }
        self.known.insert(key, known);
        Ok(())
    }

    /// CPU seconds that went by in [`Vectors::embed`] so far.
    pub fn spent(&self) -> f64 {
        self.spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::FakeEmbedder;

    #[test]
    fn a_text_is_embedded_once_and_the_next_run_finds_it() {
        let place = tempfile::tempdir().unwrap();
        let embedder = EmbedderHandle::spawn(Box::new(FakeEmbedder::default())).unwrap();
        let texts = ["one text", "another one", "one text"];
        let (first, took) = {
            let mut vectors = Vectors::new(&embedder, Some(place.path())).unwrap();
            let first = vectors.embed(&texts).unwrap();
            assert_eq!(embedder.counters().texts, 2);
            first
        };
        assert_eq!(first[0], first[2]);
        assert_ne!(first[0], first[1]);
        // Half a record at the end, as a killed run leaves it.
        let path = std::fs::read_dir(place.path()).unwrap().next().unwrap().unwrap().path();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&[7; 100]).unwrap();
        for _ in 0..2 {
            let mut again = Vectors::new(&embedder, Some(place.path())).unwrap();
            let (vectors, charged) = again.embed(&texts).unwrap();
            assert_eq!((embedder.counters().texts, &vectors), (2, &first));
            assert!((charged - took).abs() < 1e-6, "charged {charged} for what took {took}");
        }
        embedder.stop();
    }
}
