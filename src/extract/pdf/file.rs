//! The file as objects, and its streams decoded under limits. Must never decode a stream without knowing where it ends:
//! a kilobyte can unfold to a gigabyte.

use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;

use flate2::read::{DeflateDecoder, ZlibDecoder};
use hayro_syntax::object::Stream;
use hayro_syntax::{Filter, LoadPdfError, Pdf, PdfData};

use super::super::{ExtractError, Limits, Source};

/// Of a stream that only the parser itself can decode, compressed: it knows no limit.
const UNLIMITED_BYTES: usize = 128 << 10;
/// Of a font's streams, compressed, that are loaded without a look at how large they become (at most 1032 times that).
const SMALL_BYTES: usize = 16 << 10;

/// Opens a file and looks whether its tables are bombs.
pub fn open(source: &Source, limits: &Limits) -> Result<Pdf, ExtractError> {
    let bytes = Arc::new(source.read_whole("the PDF", limits.max_total_bytes)?);
    check_object_streams(source, &bytes, limits)?;
    Pdf::new(PdfData::from(bytes)).map_err(|error| match error {
        LoadPdfError::Decryption(error) => {
            use hayro_syntax::DecryptionError as E;
            let scheme = match error {
                E::PasswordProtected => "a password is needed to open it",
                E::UnsupportedAlgorithm => "its encryption is not the standard one",
                E::MissingIDEntry | E::InvalidEncryption => "its encryption cannot be understood",
            };
            ExtractError::Encrypted { path: source.path().to_owned(), scheme: scheme.to_owned() }
        }
        LoadPdfError::Invalid => ExtractError::corrupt(source.path(), "no page of a PDF can be found in it"),
    })
}

/// The parser decodes streams of objects on its own, without a limit; so they are unfolded here first, into nothing.
fn check_object_streams(source: &Source, bytes: &[u8], limits: &Limits) -> Result<(), ExtractError> {
    let mut left = limits.max_total_bytes;
    for tag in [b"/ObjStm".as_slice(), b"/XRef"] {
        for at in memchr::memmem::find_iter(bytes, tag) {
            // The dictionary's end: other keys may stand behind the type.
            let tail = &bytes[at..bytes.len().min(at + 4096)];
            let Some(start) = memchr::memmem::find(tail, b"stream") else { continue };
            let data = &bytes[at + start + 6..];
            let data = &data[data.iter().take(2).take_while(|byte| matches!(byte, b'\r' | b'\n')).count()..];
            let size = inflated_size(data, limits.max_entry_bytes.min(left));
            left = left.saturating_sub(size);
            if size >= limits.max_entry_bytes || left == 0 {
                return Err(too_large(source, limits.max_entry_bytes));
            }
        }
    }
    Ok(())
}

fn too_large(source: &Source, limit: u64) -> ExtractError {
    ExtractError::TooLarge { path: source.path().to_owned(), what: "one of its streams".to_owned(), limit }
}

/// How many bytes come out, counted up to `limit`.
fn inflated_size(data: &[u8], limit: u64) -> u64 {
    let count = |reader: &mut dyn Read| {
        let (mut buffer, mut size) = ([0; 16 << 10], 0);
        while let Ok(read @ 1..) = reader.read(&mut buffer) {
            size += read as u64;
            if size >= limit {
                break;
            }
        }
        size
    };
    count(&mut ZlibDecoder::new(data))
}

/// Whether a stream of a font may be loaded by the parser.
pub fn is_harmless(stream: &Stream<'_>, limits: &Limits) -> bool {
    let raw = stream.raw_data();
    let filters = stream.filters();
    match filters.iter().filter(|filter| unfolds(**filter)).count() {
        0 => true,
        1 if raw.len() <= SMALL_BYTES => true,
        1 if filters.first() == Some(&Filter::FlateDecode) => {
            inflated_size(&raw, limits.max_entry_bytes) < limits.max_entry_bytes
        }
        1 => raw.len() <= UNLIMITED_BYTES,
        _ => false,
    }
}

fn unfolds(filter: Filter) -> bool {
    matches!(filter, Filter::FlateDecode | Filter::LzwDecode | Filter::RunLengthDecode)
}

/// Why a stream of content is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It breaks off, or cannot be decoded at all.
    Damaged,
    /// It unfolds beyond the limit.
    TooLarge,
}

/// A stream of content: what can be had of it, and why that is not all.
pub fn content<'a>(stream: &Stream<'a>, limit: u64) -> (Cow<'a, [u8]>, Option<Loss>) {
    let filters = stream.filters();
    if filters.as_slice() == [Filter::FlateDecode] && !has_parameters(stream) {
        let raw = stream.raw_data();
        let (bytes, loss) = inflate(&mut ZlibDecoder::new(&*raw), limit);
        if !bytes.is_empty() || loss.is_none() {
            return (Cow::Owned(bytes), loss);
        }
        // A header that is damaged or absent.
        let (bytes, _) = inflate(&mut DeflateDecoder::new(raw.get(2..).unwrap_or_default()), limit);
        if !bytes.is_empty() {
            return (Cow::Owned(bytes), Some(Loss::Damaged));
        }
        let (bytes, loss) = inflate(&mut DeflateDecoder::new(&*raw), limit);
        return (Cow::Owned(bytes), loss);
    }
    let size = stream.raw_data().len();
    let unfolding = filters.iter().filter(|filter| unfolds(**filter)).count();
    if size as u64 > limit || unfolding > 1 || (unfolding == 1 && size > UNLIMITED_BYTES) {
        return (Cow::Borrowed(&[]), Some(Loss::TooLarge));
    }
    match stream.decoded_data() {
        Ok(bytes) if bytes.len() as u64 <= limit => (bytes, None),
        Ok(_) => (Cow::Borrowed(&[]), Some(Loss::TooLarge)),
        Err(_) => (Cow::Borrowed(&[]), Some(Loss::Damaged)),
    }
}

fn has_parameters(stream: &Stream<'_>) -> bool {
    ["DecodeParms", "DP"].iter().any(|key| stream.dict().contains_key(key))
}

fn inflate(decoder: &mut dyn Read, limit: u64) -> (Vec<u8>, Option<Loss>) {
    let mut bytes = Vec::new();
    let result = decoder.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    if bytes.len() as u64 > limit {
        bytes.truncate(limit as usize);
        return (bytes, Some(Loss::TooLarge));
    }
    (bytes, result.is_err().then_some(Loss::Damaged))
}
