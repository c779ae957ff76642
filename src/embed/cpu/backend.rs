//! The CPU backend: f32 in plain vectors. It keeps nothing between two batches, so several threads can share it.

use candle_core::{DType, Tensor};

use super::attention::attention;
use super::operations;
use super::product::{Panels, View, product};
use crate::embed::EmbedError;
use crate::embed::backend::{Backend, PackedBatch, Pooling, Shape, l2_normalised};

/// See the file's head.
pub struct CpuBackend {
    shape: Shape,
    /// How many threads of the current pool a batch has for itself.
    threads: usize,
}

/// A resident matrix.
pub enum Matrix {
    /// To look rows up in.
    Table(Rows),
    /// To multiply by: the transpose, laid out for [`product`].
    Factor(Panels),
}

/// Numbers in rows, one after the other.
pub struct Rows {
    values: Vec<f32>,
    columns: usize,
}

impl Rows {
    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.columns..(index + 1) * self.columns]
    }

    fn view(&self) -> View<'_> {
        View::new(&self.values, self.values.len() / self.columns, self.columns, self.columns)
    }
}

/// Token ids and rows of the position table, and where the texts are.
pub struct CpuBatch {
    ids: Vec<u32>,
    positions: Vec<u32>,
    /// First token and length of each text.
    ranges: Vec<(usize, usize)>,
}

impl CpuBackend {
    pub fn new(shape: Shape, threads: usize) -> Self {
        Self { shape, threads }
    }
}

impl Backend for CpuBackend {
    type Matrix = Matrix;
    type Parameters = Vec<f32>;
    type Rows = Rows;
    type Batch = CpuBatch;
    type Pooled = Vec<Vec<f32>>;

    fn table(&self, host: &Tensor) -> Result<Matrix, EmbedError> {
        let (_, columns) = host.dims2()?;
        Ok(Matrix::Table(Rows { values: host.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?, columns }))
    }

    fn matrix(&self, host: &Tensor) -> Result<Matrix, EmbedError> {
        let (rows, columns) = host.dims2()?;
        let values: Vec<f32> = host.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let mut panels = Panels::default();
        panels.fill_transposed(View::new(&values, rows, columns, columns));
        Ok(Matrix::Factor(panels))
    }

    fn parameters(&self, host: &Tensor) -> Result<Vec<f32>, EmbedError> {
        Ok(host.flatten_all()?.to_vec1()?)
    }

    fn begin(&self, batch: &PackedBatch) -> Result<CpuBatch, EmbedError> {
        Ok(CpuBatch { ids: batch.ids.clone(), positions: batch.positions.clone(), ranges: batch.ranges().collect() })
    }

    fn embed_layer_norm(
        &self,
        batch: &CpuBatch,
        words: &Matrix,
        positions: &Matrix,
        norm: &Vec<f32>,
        eps: f32,
    ) -> Result<Rows, EmbedError> {
        let (Matrix::Table(words), Matrix::Table(positions)) = (words, positions) else {
            return Err(EmbedError::Compute("rows are looked up in tables alone".into()));
        };
        let known = words.values.len() / words.columns;
        if let Some(id) = batch.ids.iter().find(|&&id| id as usize >= known) {
            return Err(EmbedError::Compute(format!("token id {id}, but the model knows {known}")));
        }
        let mut values = Vec::with_capacity(batch.ids.len() * words.columns);
        batch.ids.iter().for_each(|&id| values.extend_from_slice(words.row(id as usize)));
        let position = |row: usize| positions.row(batch.positions[row] as usize);
        operations::bias_residual_layer_norm(&mut values, position, norm, eps);
        Ok(Rows { values, columns: words.columns })
    }

    fn linear(&self, x: &Rows, weight: &Matrix) -> Result<Rows, EmbedError> {
        let Matrix::Factor(weight) = weight else {
            return Err(EmbedError::Compute("a table is not multiplied by".into()));
        };
        Ok(Rows { values: product(x.view(), weight, self.threads), columns: weight.columns() })
    }

    fn attention(&self, batch: &CpuBatch, qkv: Rows, query_bias: &Vec<f32>) -> Result<Rows, EmbedError> {
        let values = attention(&qkv.values, query_bias, self.shape, &batch.ranges, self.threads);
        Ok(Rows { values, columns: self.shape.hidden })
    }

    fn bias_residual_layer_norm(
        &self,
        x: &mut Rows,
        residual: &Rows,
        norm: &Vec<f32>,
        eps: f32,
    ) -> Result<(), EmbedError> {
        operations::bias_residual_layer_norm(&mut x.values, |row| residual.row(row), norm, eps);
        Ok(())
    }

    fn bias_gelu(&self, x: &mut Rows, bias: &Vec<f32>) -> Result<(), EmbedError> {
        operations::bias_gelu(&mut x.values, bias);
        Ok(())
    }

    fn pool(&self, batch: CpuBatch, x: Rows, pooling: Pooling) -> Result<Vec<Vec<f32>>, EmbedError> {
        let pooled = |&(start, length): &(usize, usize)| match pooling {
            Pooling::Cls => l2_normalised(x.row(start).to_vec()),
            Pooling::Mean => {
                let mut sums = vec![0f64; x.columns];
                for row in (start..start + length).map(|token| x.row(token)) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                l2_normalised(sums.iter().map(|sum| (sum / length as f64) as f32).collect())
            }
        };
        Ok(batch.ranges.iter().map(pooled).collect())
    }

    #[cfg(feature = "cuda")]
    fn read(&self, x: &Rows) -> Result<Vec<f32>, EmbedError> {
        Ok(x.values.clone())
    }

    fn nearly_done(&self) -> Result<(), EmbedError> {
        Ok(())
    }
}
