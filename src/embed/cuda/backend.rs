//! The CUDA backend: f16 weights and activations, f32 sums, norms, softmax and pooling.
//!
//! All activations lie in one workspace that is allocated for a number of tokens and then kept: a batch allocates
//! nothing, so a card that other programs fill up later does not matter. Everything is issued on one stream, whose order
//! makes it safe to reuse a slot as soon as its last reader was issued.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{CpuStorage, Storage, Tensor};
use cudarc::driver::{CudaEvent, LaunchConfig, PushKernelArg};
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::gpu::{DeviceBuffer, Gpu, PinnedBuffer, driver_error};
use super::slots::{self, Slots};
use crate::embed::EmbedError;
use crate::embed::backend::{Backend, PackedBatch, Pooling, Shape};

/// Batches that may be unfinished: one in work and the next one.
pub const IN_FLIGHT: usize = 2;

/// Numbers that a weight is converted and copied in at a time.
const STAGING_NUMBERS: usize = 4 << 20;

/// Rows that one block of the norm kernels takes: a warp of 32 threads each.
const NORM_ROWS: u32 = 8;
const BLOCK: u32 = 256;

/// Queries of one tile of the attention kernels, and their block.
const TILE_QUERIES: usize = 128;
const ATTENTION_BLOCK: u32 = 128;

/// Columns that the norm kernels can take.
const MAX_HIDDEN: usize = 4096;

/// See the file's head.
pub struct CudaBackend {
    pub gpu: Gpu,
    shape: Shape,
    inner: Mutex<Inner>,
    weight_bytes: AtomicU64,
    /// The last layer of the newest batch is about to be issued.
    nearly_done: CudaEvent,
}

struct Inner {
    workspace: Option<Workspace>,
    flights: [Flight; IN_FLIGHT],
    /// The flight that the next batch takes.
    next: usize,
    staging: [Staging; 2],
}

/// The host's side of a batch in work: it may be written again once `done` has happened.
struct Flight {
    inputs: PinnedBuffer<u32>,
    vectors: PinnedBuffer<f32>,
    done: CudaEvent,
}

struct Staging {
    numbers: PinnedBuffer<f16>,
    copied: CudaEvent,
}

struct Workspace {
    activations: DeviceBuffer,
    inputs: DeviceBuffer,
    tokens: usize,
    slots: Arc<Mutex<Slots>>,
}

/// A matrix on the card, `[rows, columns]`, f16.
pub struct CudaMatrix {
    buffer: DeviceBuffer,
    rows: usize,
    columns: usize,
}

/// f32 numbers on the card.
pub struct CudaParameters {
    buffer: DeviceBuffer,
    length: usize,
}

/// Activations in the workspace, `[tokens, columns]`, f16. Dropping them gives their place back.
pub struct CudaRows {
    address: u64,
    tokens: usize,
    columns: usize,
    first_unit: usize,
    units: usize,
    slots: Arc<Mutex<Slots>>,
}

/// Addresses of a batch's integers on the card.
pub struct CudaBatch {
    tokens: usize,
    texts: usize,
    tiles: u32,
    ids: u64,
    positions: u64,
    starts: u64,
    tile_list: u64,
    flight: usize,
}

/// Vectors on their way to the host.
pub struct CudaPooled {
    texts: usize,
    flight: usize,
}

impl CudaBackend {
    /// Opens the card for a model of this shape.
    pub fn open(shape: Shape) -> Result<Self, EmbedError> {
        if !matches!(shape.head_size(), 32 | 64) {
            return Err(EmbedError::Load(format!(
                "this model's heads have {} numbers; the GPU's attention is for 32 and 64: set embedding.device to \"cpu\"",
                shape.head_size()
            )));
        }
        if shape.hidden > MAX_HIDDEN || !shape.intermediate.is_multiple_of(8) {
            return Err(EmbedError::Load(format!(
                "the GPU's kernels take up to {MAX_HIDDEN} hidden units and a multiple of 8 inner ones, this model has \
                 {} and {}: set embedding.device to \"cpu\"",
                shape.hidden, shape.intermediate
            )));
        }
        let gpu = Gpu::open()?;
        let flight = || -> Result<Flight, EmbedError> {
            let (inputs, vectors) = (PinnedBuffer::new(&gpu.context), PinnedBuffer::new(&gpu.context));
            Ok(Flight { inputs, vectors, done: gpu.event()? })
        };
        let staging = || -> Result<Staging, EmbedError> {
            Ok(Staging { numbers: PinnedBuffer::new(&gpu.context), copied: gpu.event()? })
        };
        let inner =
            Inner { workspace: None, flights: [flight()?, flight()?], next: 0, staging: [staging()?, staging()?] };
        let nearly_done = gpu.event()?;
        Ok(Self { gpu, shape, inner: Mutex::new(inner), weight_bytes: AtomicU64::new(0), nearly_done })
    }

    /// A panic while this is held leaves it in order: slots are given back by `Drop`.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Bytes of the weights on the card.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of everything else that this process allocated on the card.
    pub fn workspace_bytes(&self) -> u64 {
        let workspace = self.inner().workspace.as_ref().map_or(0, |workspace| workspace.bytes());
        (workspace + self.gpu.bytes()) as u64
    }

    /// Bytes of workspace that each token takes.
    pub fn bytes_per_token(&self) -> usize {
        activation_bytes(&self.shape, 1) + input_numbers(1) * size_of::<u32>()
    }

    /// Tokens there is a workspace for.
    pub fn capacity(&self) -> usize {
        self.inner().workspace.as_ref().map_or(0, |workspace| workspace.tokens)
    }

    /// Gives the workspace this many tokens. No batch may be unfinished. After an error there is none.
    pub fn resize(&self, tokens: usize) -> Result<(), EmbedError> {
        self.gpu.synchronize()?;
        let mut inner = self.inner();
        if inner.workspace.as_ref().is_some_and(|workspace| workspace.tokens == tokens) {
            return Ok(());
        }
        // Freed first: both together might not fit.
        inner.workspace = None;
        if tokens > 0 {
            inner.workspace = Some(Workspace {
                activations: DeviceBuffer::new(&self.gpu.context, activation_bytes(&self.shape, tokens))?,
                inputs: DeviceBuffer::new(&self.gpu.context, input_numbers(tokens) * size_of::<u32>())?,
                tokens,
                slots: Arc::new(Mutex::new(Slots::new(slots::units(&self.shape)))),
            });
        }
        Ok(())
    }

    /// Weights are loaded: the memory that was needed for it goes back.
    pub fn loaded(&self) -> Result<(), EmbedError> {
        // The whole card, not the stream: parameters were copied outside of it.
        self.gpu.context.synchronize().map_err(driver_error)?;
        for staging in &mut self.inner().staging {
            staging.numbers = PinnedBuffer::new(&self.gpu.context);
        }
        Ok(())
    }

    /// Waits until the newest batch is nearly done.
    pub fn wait_until_nearly_done(&self) -> Result<(), EmbedError> {
        self.nearly_done.synchronize().map_err(driver_error)
    }

    /// Waits for a batch's vectors, one of `hidden` numbers a text.
    pub fn vectors(&self, pooled: CudaPooled) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut inner = self.inner();
        let flight = &mut inner.flights[pooled.flight];
        flight.done.synchronize().map_err(driver_error)?;
        let vectors = flight.vectors.slice(pooled.texts * self.shape.hidden)?;
        Ok(vectors.chunks_exact(self.shape.hidden).map(<[f32]>::to_vec).collect())
    }

    fn rows(&self, tokens: usize, columns: usize) -> Result<CudaRows, EmbedError> {
        let inner = self.inner();
        let no_room = || EmbedError::Compute("the workspace has no room for the activations; this is a bug".into());
        let workspace = inner.workspace.as_ref().filter(|workspace| workspace.tokens >= tokens).ok_or_else(no_room)?;
        let units = slots::width(columns, self.shape.hidden);
        let first_unit = lock(&workspace.slots).take(units).ok_or_else(no_room)?;
        let unit_bytes = workspace.tokens * self.shape.hidden * size_of::<f16>();
        let address = workspace.activations.address + (first_unit * unit_bytes) as u64;
        Ok(CudaRows { address, tokens, columns, first_unit, units, slots: workspace.slots.clone() })
    }

    /// Converts to f16 and copies, a part at a time, so that converting and copying overlap.
    fn upload(&self, numbers: usize, to: u64, convert: impl Fn(usize, &mut [f16])) -> Result<(), EmbedError> {
        let mut inner = self.inner();
        for (turn, first) in (0..numbers).step_by(STAGING_NUMBERS).enumerate() {
            let staging = &mut inner.staging[turn % 2];
            staging.copied.synchronize().map_err(driver_error)?;
            let part = staging.numbers.slice(STAGING_NUMBERS.min(numbers - first))?;
            convert(first, part);
            // Without an early end, so that it is many numbers at a time.
            if part.iter().fold(false, |any, number| any | !number.is_finite()) {
                return Err(EmbedError::Load(
                    "a weight is not a number, or over 65504 and so too large for f16: set embedding.device to \"cpu\""
                        .into(),
                ));
            }
            // SAFETY: the destination holds `numbers` f16; the part is pinned and is written again only after `copied`.
            unsafe { self.gpu.copy_in(to + (first * size_of::<f16>()) as u64, part)? };
            staging.copied.record(&self.gpu.stream).map_err(driver_error)?;
        }
        Ok(())
    }

    /// Rounds of a product of three `[size, size]` matrices: what the card reaches, in operations a second.
    pub fn measure_matmul(&self, size: usize, rounds: usize) -> Result<f64, EmbedError> {
        let matrix = DeviceBuffer::new(&self.gpu.context, 3 * size * size * size_of::<f16>())?;
        let side = (size * size * size_of::<f16>()) as u64;
        let numbers = |first: usize, part: &mut [f16]| {
            for (index, number) in part.iter_mut().enumerate() {
                // Real-looking numbers: a card draws less power, and clocks higher, on zeros.
                let bits = (first + index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                *number = f16::from_f32((bits & 0xffff) as f32 / 32768.0 - 1.0);
            }
        };
        self.upload(2 * size * size, matrix.address, numbers)?;
        let product = || {
            // SAFETY: three matrices of `size` squared f16 in one buffer that lives until the end of this function.
            unsafe {
                self.gpu.matmul(matrix.address + 2 * side, matrix.address, matrix.address + side, (size, size, size))
            }
        };
        for _ in 0..2 {
            product()?;
        }
        self.gpu.synchronize()?;
        let started = std::time::Instant::now();
        for _ in 0..rounds {
            product()?;
        }
        self.gpu.synchronize()?;
        Ok(2.0 * (size as f64).powi(3) * rounds as f64 / started.elapsed().as_secs_f64())
    }
}

impl Workspace {
    fn bytes(&self) -> usize {
        self.activations.bytes + self.inputs.bytes
    }
}

impl Drop for CudaRows {
    fn drop(&mut self) {
        lock(&self.slots).give_back(self.first_unit, self.units);
    }
}

fn lock(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn activation_bytes(shape: &Shape, tokens: usize) -> usize {
    slots::units(shape) * tokens * shape.hidden * size_of::<f16>()
}

/// Ids, positions, starts (one more than texts) and tiles (three numbers each, one a text and one more for every full
/// tile) of a batch in which every text is one token, the worst there is.
fn input_numbers(tokens: usize) -> usize {
    tokens + tokens + (tokens + 1) + 3 * (tokens + tokens / TILE_QUERIES)
}

/// The attention's work as a list: first token of the text, its length, first query of the tile within the text.
fn attention_tiles(batch: &PackedBatch) -> impl Iterator<Item = [u32; 3]> + '_ {
    batch.ranges().flat_map(|(start, length)| {
        (0..length).step_by(TILE_QUERIES).map(move |query| [start as u32, length as u32, query as u32])
    })
}

fn require(sizes_agree: bool) -> Result<(), EmbedError> {
    let bug = || EmbedError::Compute("activations and weights are of different sizes; this is a bug".into());
    sizes_agree.then_some(()).ok_or_else(bug)
}

fn blocks(count: usize, per_block: u32) -> u32 {
    count.div_ceil(per_block as usize) as u32
}

fn grid(x: u32, y: u32, block: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (x, y, 1), block_dim: (block, 1, 1), shared_mem_bytes: 0 }
}

/// The tensor's numbers, on the host and contiguous.
fn with_numbers<T>(host: &Tensor, f: impl FnOnce(&CpuStorage, usize, usize) -> T) -> Result<T, EmbedError> {
    let (storage, layout) = host.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => Ok(f(storage, start, end)),
        _ => Err(EmbedError::Compute("a weight is not contiguous on the host".into())),
    }
}

impl Backend for CudaBackend {
    type Matrix = CudaMatrix;
    type Parameters = CudaParameters;
    type Rows = CudaRows;
    type Batch = CudaBatch;
    type Pooled = CudaPooled;

    fn matrix(&self, host: &Tensor) -> Result<CudaMatrix, EmbedError> {
        let (rows, columns) = host.dims2()?;
        let buffer = DeviceBuffer::new(&self.gpu.context, rows * columns * size_of::<f16>())?;
        self.weight_bytes.fetch_add(buffer.bytes as u64, Ordering::Relaxed);
        with_numbers(host, |storage, start, end| {
            let numbers = end - start;
            match storage {
                CpuStorage::F32(values) => self.upload(numbers, buffer.address, |first, part| {
                    part.convert_from_f32_slice(&values[start + first..start + first + part.len()]);
                }),
                CpuStorage::F16(values) => self.upload(numbers, buffer.address, |first, part| {
                    part.copy_from_slice(&values[start + first..start + first + part.len()]);
                }),
                CpuStorage::BF16(values) => self.upload(numbers, buffer.address, |first, part| {
                    for (to, from) in part.iter_mut().zip(&values[start + first..]) {
                        *to = f16::from_f32(from.to_f32());
                    }
                }),
                _ => Err(EmbedError::Load("a weight is neither f32, f16 nor bf16".into())),
            }
        })??;
        Ok(CudaMatrix { buffer, rows, columns })
    }

    fn parameters(&self, host: &Tensor) -> Result<CudaParameters, EmbedError> {
        let values = host.flatten_all()?.to_vec1::<f32>()?;
        let buffer = DeviceBuffer::new(&self.gpu.context, size_of_val(values.as_slice()))?;
        self.weight_bytes.fetch_add(buffer.bytes as u64, Ordering::Relaxed);
        self.gpu.bind()?;
        // SAFETY: the buffer holds the values; the copy is over when the call returns.
        unsafe { cudarc::driver::result::memcpy_htod_sync(buffer.address, &values) }.map_err(driver_error)?;
        Ok(CudaParameters { buffer, length: values.len() })
    }

    fn begin(&self, batch: &PackedBatch) -> Result<CudaBatch, EmbedError> {
        let mut inner = self.inner();
        let Inner { workspace, flights, next, .. } = &mut *inner;
        let (tokens, texts) = (batch.tokens(), batch.texts());
        let Some(workspace) = workspace.as_ref().filter(|workspace| workspace.tokens >= tokens) else {
            return Err(EmbedError::OutOfMemory(format!("the workspace has no room for {tokens} tokens")));
        };
        // Its turn passes on when its vectors are on their way; a batch that fails before that leaves it here.
        let flight = *next;
        let tiles: Vec<u32> = attention_tiles(batch).flatten().collect();
        let parts = [&batch.ids, &batch.positions, &batch.starts, &tiles];
        // At most two batches are unfinished, so the last use of this flight's memory is over.
        let inputs = flights[flight].inputs.slice(parts.iter().map(|part| part.len()).sum())?;
        let mut addresses = [0; 4];
        let mut first = 0;
        for (part, address) in parts.into_iter().zip(&mut addresses) {
            inputs[first..first + part.len()].copy_from_slice(part);
            *address = workspace.inputs.address + (first * size_of::<u32>()) as u64;
            first += part.len();
        }
        let [ids, positions, starts, tile_list] = addresses;
        // SAFETY: `input_numbers` is the most that so many tokens can need; pinned memory that is written again only
        // when this flight comes round, after its `done`.
        unsafe { self.gpu.copy_in(workspace.inputs.address, inputs)? };
        Ok(CudaBatch { tokens, texts, tiles: (tiles.len() / 3) as u32, ids, positions, starts, tile_list, flight })
    }

    fn embed_layer_norm(
        &self,
        batch: &CudaBatch,
        words: &CudaMatrix,
        positions: &CudaMatrix,
        norm: &CudaParameters,
        eps: f32,
    ) -> Result<CudaRows, EmbedError> {
        let out = self.rows(batch.tokens, self.shape.hidden)?;
        require(words.columns == self.shape.hidden && norm.length == 3 * self.shape.hidden)?;
        let (tokens, hidden) = (batch.tokens as u32, self.shape.hidden as u32);
        let mut launch = self.gpu.stream.launch_builder(&self.gpu.kernels.embed_layer_norm);
        launch.arg(&out.address).arg(&words.buffer.address).arg(&positions.buffer.address).arg(&batch.ids);
        launch.arg(&batch.positions).arg(&norm.buffer.address).arg(&tokens).arg(&hidden).arg(&eps);
        // SAFETY: the arguments are the kernel's, in its order; `out` holds [tokens, hidden], the ids and positions
        // were checked against the tables by the embedder.
        unsafe { launch.launch(grid(blocks(batch.tokens, NORM_ROWS), 1, BLOCK)) }.map_err(driver_error)?;
        Ok(out)
    }

    fn linear(&self, x: &CudaRows, weight: &CudaMatrix) -> Result<CudaRows, EmbedError> {
        let out = self.rows(x.tokens, weight.rows)?;
        require(x.columns == weight.columns)?;
        let sizes = (x.tokens, weight.columns, weight.rows);
        // SAFETY: both activations lie in the workspace, which holds this batch's tokens; the weight is resident.
        unsafe {
            self.gpu.matmul(out.address, x.address, weight.buffer.address, sizes)?;
        }
        Ok(out)
    }

    fn attention(&self, batch: &CudaBatch, qkv: CudaRows, query_bias: &CudaParameters) -> Result<CudaRows, EmbedError> {
        let out = self.rows(qkv.tokens, self.shape.hidden)?;
        require(qkv.columns == 3 * self.shape.hidden && query_bias.length == self.shape.hidden)?;
        let kernels = &self.gpu.kernels;
        let kernel = if self.shape.head_size() == 32 { &kernels.attention_head32 } else { &kernels.attention_head64 };
        let heads = self.shape.heads as u32;
        let mut launch = self.gpu.stream.launch_builder(kernel);
        launch.arg(&out.address).arg(&qkv.address).arg(&query_bias.buffer.address).arg(&batch.tile_list).arg(&heads);
        // SAFETY: the arguments are the kernel's, in its order; the tiles lie within the batch's tokens.
        unsafe { launch.launch(grid(batch.tiles, heads, ATTENTION_BLOCK)) }.map_err(driver_error)?;
        Ok(out)
    }

    fn bias_residual_layer_norm(
        &self,
        x: &mut CudaRows,
        residual: &CudaRows,
        norm: &CudaParameters,
        eps: f32,
    ) -> Result<(), EmbedError> {
        require(x.columns == self.shape.hidden && residual.columns == x.columns && norm.length == 3 * x.columns)?;
        let (rows, hidden) = (x.tokens as u32, self.shape.hidden as u32);
        let mut launch = self.gpu.stream.launch_builder(&self.gpu.kernels.bias_residual_layer_norm);
        launch.arg(&x.address).arg(&residual.address).arg(&norm.buffer.address).arg(&rows).arg(&hidden).arg(&eps);
        // SAFETY: the arguments are the kernel's, in its order, and hold [tokens, hidden].
        unsafe { launch.launch(grid(blocks(x.tokens, NORM_ROWS), 1, BLOCK)) }.map_err(driver_error)?;
        Ok(())
    }

    fn bias_gelu(&self, x: &mut CudaRows, bias: &CudaParameters) -> Result<(), EmbedError> {
        require(bias.length == x.columns)?;
        let (rows, columns) = (x.tokens as u32, x.columns as u32);
        let mut launch = self.gpu.stream.launch_builder(&self.gpu.kernels.bias_gelu);
        launch.arg(&x.address).arg(&bias.buffer.address).arg(&rows).arg(&columns);
        // SAFETY: the arguments are the kernel's, in its order; a thread takes 8 numbers, and columns divide by 8.
        unsafe { launch.launch(grid(blocks(x.tokens * x.columns / 8, BLOCK), 1, BLOCK)) }.map_err(driver_error)?;
        Ok(())
    }

    fn pool(&self, batch: CudaBatch, x: CudaRows, pooling: Pooling) -> Result<CudaPooled, EmbedError> {
        // f32 vectors of as many texts as there are tokens would take two units.
        let pooled = self.rows(batch.tokens, 2 * self.shape.hidden)?;
        let (hidden, cls) = (self.shape.hidden as u32, u32::from(pooling == Pooling::Cls));
        let mut launch = self.gpu.stream.launch_builder(&self.gpu.kernels.pool_normalise);
        launch.arg(&pooled.address).arg(&x.address).arg(&batch.starts).arg(&hidden).arg(&cls);
        // SAFETY: the arguments are the kernel's, in its order; one block a text writes its vector.
        unsafe { launch.launch(grid(batch.texts as u32, 1, BLOCK)) }.map_err(driver_error)?;
        let mut inner = self.inner();
        inner.next = (batch.flight + 1) % IN_FLIGHT;
        let flight = &mut inner.flights[batch.flight];
        let vectors = flight.vectors.slice(batch.texts * self.shape.hidden)?;
        // SAFETY: `pooled` holds the vectors; pinned memory that is read after `done` and written again only later.
        unsafe { self.gpu.copy_out(vectors, pooled.address)? };
        flight.done.record(&self.gpu.stream).map_err(driver_error)?;
        Ok(CudaPooled { texts: batch.texts, flight: batch.flight })
    }

    fn read(&self, x: &CudaRows) -> Result<Vec<f32>, EmbedError> {
        let mut numbers = vec![f16::ZERO; x.tokens * x.columns];
        self.gpu.synchronize()?;
        // SAFETY: the rows hold that many numbers, nothing is in work, and the copy is over when the call returns.
        unsafe { cudarc::driver::result::memcpy_dtoh_sync(&mut numbers, x.address) }.map_err(driver_error)?;
        Ok(numbers.to_f32_vec())
    }

    fn nearly_done(&self) -> Result<(), EmbedError> {
        self.nearly_done.record(&self.gpu.stream).map_err(driver_error)
    }
}
