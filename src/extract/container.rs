//! The ZIP archive that a book is (EPUB, DOCX, ODT, HTMLZ, FBZ). Must never decompress more than the limits allow, or
//! believe a declared size.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use zip::ZipArchive;
use zip::result::ZipError;

use super::source::SourceReader;
use super::{ExtractError, Limits, Source};

/// Longer names lead nowhere: every link beside such a file would be put together with its folder's name anew.
const NAME_BYTES: usize = 1024;

/// An open archive.
pub struct Container {
    path: PathBuf,
    zip: ZipArchive<BufReader<SourceReader>>,
    limits: Limits,
    /// Bytes decompressed so far.
    spent: u64,
    by_name: HashMap<String, usize>,
    /// For links whose author worked on a file system that ignores case.
    by_lower_name: HashMap<String, usize>,
}

/// A link's target in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The entry's index.
    pub entry: usize,
    /// As written after the `#`.
    pub fragment: Option<String>,
}

impl Container {
    pub fn open(source: &Source, limits: &Limits) -> Result<Self, ExtractError> {
        let zip = ZipArchive::new(BufReader::new(source.reader()));
        let zip = zip.map_err(|error| zip_error(source.path(), None, error))?;
        let mut by_name = HashMap::new();
        let mut by_lower_name = HashMap::new();
        for (index, name) in zip.file_names().enumerate() {
            // A name that is no text cannot be linked to.
            let Some(name) = name.ok().filter(|name| name.len() <= NAME_BYTES) else { continue };
            let name = normalise(&name.replace('\\', "/"));
            by_lower_name.entry(name.to_lowercase()).or_insert(index);
            by_name.insert(name, index);
        }
        Ok(Self { path: source.path().to_owned(), zip, limits: limits.clone(), spent: 0, by_name, by_lower_name })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The entry that a link in a file of the folder `base` means.
    pub fn resolve(&self, base: &str, link: &str) -> Option<Target> {
        let (file, fragment) = match link.split_once('#') {
            Some((file, fragment)) => (file, Some(fragment.to_owned()).filter(|fragment| !fragment.is_empty())),
            None => (link, None),
        };
        if file.trim().is_empty() {
            return None;
        }
        // A link is encoded by the rules; some are not, and some names hold a true percent sign.
        let decoded = percent_decode_str(file).decode_utf8_lossy();
        let candidates = [file, &*decoded].map(|file| normalise(&format!("{base}/{}", file.trim())));
        let exact = candidates.iter().find_map(|name| self.by_name.get(name));
        let entry = exact.or_else(|| candidates.iter().find_map(|name| self.by_lower_name.get(&name.to_lowercase())));
        entry.map(|entry| Target { entry: *entry, fragment })
    }

    /// The entry with this name from the archive's root.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.resolve("", name).map(|target| target.entry)
    }

    /// The entry whose name ends so, the first by name where there are several.
    pub fn find_by_suffix(&self, suffix: &str) -> Option<usize> {
        let matching = self.by_name.iter().filter(|(name, _)| name.to_ascii_lowercase().ends_with(suffix));
        matching.min().map(|(_, index)| *index)
    }

    /// The normalised names of all entries that can be linked to, with their indexes; in no order.
    pub fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.by_name.iter().map(|(name, entry)| (name.as_str(), *entry))
    }

    /// The normalised name of an entry.
    pub fn name(&self, entry: usize) -> String {
        match self.zip.name_for_index(entry) {
            Some(Ok(name)) => normalise(&name.replace('\\', "/")),
            _ => String::new(),
        }
    }

    /// The decompressed bytes of an entry, its checksum verified.
    pub fn read(&mut self, entry: usize) -> Result<Vec<u8>, ExtractError> {
        let name = self.name(entry);
        let too_large = |what: String, limit| ExtractError::TooLarge { path: self.path.clone(), what, limit };
        let allowed = self.limits.max_entry_bytes.min(self.limits.max_total_bytes.saturating_sub(self.spent));
        let file = self.zip.by_index(entry).map_err(|error| zip_error(&self.path, Some(&name), error))?;
        // One byte more than allowed: reading to the true end is also what verifies the checksum.
        let mut bytes = Vec::new();
        let read = file.take(allowed.saturating_add(1)).read_to_end(&mut bytes);
        if bytes.len() as u64 > allowed {
            return Err(if allowed == self.limits.max_entry_bytes {
                too_large(format!("'{name}' inside it, decompressed,"), self.limits.max_entry_bytes)
            } else {
                too_large("all that is inside it, decompressed,".to_owned(), self.limits.max_total_bytes)
            });
        }
        read.map_err(|error| zip_error(&self.path, Some(&name), ZipError::Io(error)))?;
        self.spent += bytes.len() as u64;
        Ok(bytes)
    }
}

fn zip_error(path: &Path, entry: Option<&str>, error: ZipError) -> ExtractError {
    let inside = |reason: String| match entry {
        Some(name) => ExtractError::corrupt(path, format!("'{name}' inside it: {reason}")),
        None => ExtractError::corrupt(path, format!("not a whole ZIP archive: {reason}")),
    };
    match error {
        ZipError::Io(source) if source.raw_os_error().is_some() => ExtractError::Io { path: path.to_owned(), source },
        ZipError::Io(source) => inside(source.to_string()),
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => {
            ExtractError::Encrypted { path: path.to_owned(), scheme: "a ZIP password".to_owned() }
        }
        other => inside(other.to_string()),
    }
}

/// The folder of a file, without a slash at its end.
pub fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A path without `.`, `..` and empty parts, as from the archive's root.
fn normalise(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_monstrous_name_costs_nothing_by_the_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.zip");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        let long = "a/".repeat(30_000);
        for name in [format!("{long}x"), "x".to_owned()] {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        }
        zip.finish().unwrap();
        let container = Container::open(&Source::open(&path).unwrap(), &Limits::default()).unwrap();
        assert_eq!((container.find(&format!("{long}x")), container.find("x")), (None, Some(1)));
    }

    #[test]
    fn paths_are_normalised() {
        assert_eq!(normalise("/a/./b/../c//d"), "a/c/d");
        assert_eq!(normalise("../../x"), "x");
        assert_eq!((folder("a/b/c.x"), folder("c.x")), ("a/b", ""));
    }
}
