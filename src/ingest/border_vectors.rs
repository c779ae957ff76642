//! The vectors that the chunker may ask for, from the loaded model.

use super::{Ingestor, JobError};
use crate::chunk::BorderVectors;
use crate::embed::{EmbedError, EmbedderHandle, Priority};
use crate::queue::ClaimedJob;

/// For one book outside the service.
pub struct ModelVectors<'a>(pub &'a EmbedderHandle);

impl BorderVectors for ModelVectors<'_> {
    type Error = EmbedError;

    fn of_sentences(&mut self, sentences: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.0.embed(sentences, Priority::Bulk)
    }

    fn of_tokens(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.0.token_vectors().of_tokens(ids)
    }
}

/// For a job: shown in its progress, and refused where the process is stopping.
pub(super) struct JobVectors<'a> {
    pub ingestor: &'a Ingestor,
    pub job: &'a ClaimedJob,
}

impl BorderVectors for JobVectors<'_> {
    type Error = JobError;

    fn of_sentences(&mut self, sentences: &[&str]) -> Result<Vec<Vec<f32>>, JobError> {
        self.ingestor.interrupted()?;
        let embedder = &self.ingestor.embedder;
        Ok(self.ingestor.progress.asking(self.job.id, || ModelVectors(embedder).of_sentences(sentences))?)
    }

    fn of_tokens(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, JobError> {
        Ok(ModelVectors(&self.ingestor.embedder).of_tokens(ids)?)
    }
}
